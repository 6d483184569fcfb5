# Debian packages by CPack: 'cmake --build DIR --target package', or scripts/packages/build.
#   pstorage-client    pstorage, pstorage-nbd, pstorage-ploop, ...: what every host has
#   pstorage-server    mdsd, csd
#   pstorage-gateway   iSCSI
# What an install() rule does not name belongs to the client.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME pstorage)
set(CPACK_PACKAGE_VENDOR pstorage)
set(CPACK_PACKAGE_CONTACT "pstorage developers <root@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "highly available distributed block store")
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL client server gateway)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(depends "pstorage-client (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME pstorage-client)
set(CPACK_DEBIAN_CLIENT_DESCRIPTION
  "client of the pstorage distributed block store\n Administration, NBD server, ploop images and file systems for hosts that use a cluster.")
set(CPACK_DEBIAN_CLIENT_PACKAGE_DEPENDS "passwd, sysvinit-utils, init-system-helpers")
set(CPACK_DEBIAN_CLIENT_PACKAGE_RECOMMENDS "fuse3, e2fsprogs")
set(CPACK_DEBIAN_SERVER_PACKAGE_NAME pstorage-server)
set(CPACK_DEBIAN_SERVER_DESCRIPTION
  "servers of the pstorage distributed block store\n Metadata and chunk servers, for hosts with disks of a cluster.")
set(CPACK_DEBIAN_SERVER_PACKAGE_DEPENDS ${depends})
set(CPACK_DEBIAN_GATEWAY_PACKAGE_NAME pstorage-gateway)
set(CPACK_DEBIAN_GATEWAY_DESCRIPTION
  "iSCSI gateway of the pstorage distributed block store\n Volumes of a cluster as iSCSI targets, with tgtd and a module for it.")
set(CPACK_DEBIAN_GATEWAY_PACKAGE_DEPENDS "${depends}, tgt")
foreach(package client gateway server)
  string(TOUPPER ${package} name)
  set(from ${CMAKE_SOURCE_DIR}/scripts/packages/${package})
  set(CPACK_DEBIAN_${name}_PACKAGE_CONTROL_EXTRA
    "${from}/postinst;${from}/prerm;${from}/postrm;${from}/conffiles")
endforeach()
include(CPack)

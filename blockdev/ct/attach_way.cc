#include "blockdev/ct/attach_way.h"

namespace pstorage::ct {

Outcome<std::optional<Way>> parse_way(std::string const& text) {
  if (text.empty()) return std::optional<Way>();
  if (text == "nbd") return std::optional(Way::nbd);
  if (text == "fuse") return std::optional(Way::fuse);
  return failure(Errc::bad_request, "bad way '" + text + "': nbd or fuse");
}

Outcome<Way> choose_way(std::optional<Way> wish, Host_ways const& host,
                        std::string const& cluster) {
  auto const mount_it = "'pstorage-mount -c " + cluster + " /mnt/" + cluster + "'";
  std::string const serve_it = "'service pstorage-nbd start'";
  if (wish == Way::nbd && !host.has_kernel_nbd)
    return failure(
        Errc::refused,
        "there is no NBD client of the kernel here (module nbd): '--via fuse' needs none");
  if (wish == Way::nbd && !host.has_nbd_server)
    return failure(Errc::refused,
                   "no pstorage-nbd serves cluster '" + cluster + "' here: " + serve_it + " first");
  if (wish == Way::nbd) return Way::nbd;
  if (!wish && host.has_kernel_nbd && host.has_nbd_server) return Way::nbd;
  if (!host.view.empty()) return Way::fuse;
  if (!wish && host.has_kernel_nbd)
    return failure(Errc::refused, "the cluster is neither served nor mounted here: " + serve_it +
                                      " or " + mount_it + " first");
  return failure(Errc::refused, "the cluster is not mounted here: " + mount_it + " first");
}

}  // namespace pstorage::ct

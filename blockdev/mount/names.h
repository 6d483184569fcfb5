// Rules for names and attributes between FUSE and the MDS. Pure.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::mount {

/// What belongs to nobody yet (made by pstorage, not through a mount) appears with these.
struct Defaults {
  mode_t mode = 0755;  // of directories; files without the x bits
  uid_t uid = 0;
  gid_t gid = 0;
};

/// 0, or why `name` cannot be one: ENAMETOOLONG, EILSEQ (not UTF-8), EINVAL (control characters).
int check_name(std::string_view name);
bool is_utf8(std::string_view text);

/// "@17/name".
std::string path_in(std::uint64_t directory, std::string_view name);
std::string path_of(std::uint64_t inode);

/// Errno-free: everything stat shows of a file.
struct stat stat_of(proto::File const& file, Defaults const& defaults);
/// S_IFREG, S_IFDIR or S_IFLNK.
mode_t type_bits(proto::File_type type);

/// How long the kernel may believe an entry and its attributes, in seconds.
struct Validity {
  double entry = 0;
  double attributes = 0;
};
/// `leased`: this host holds a lease of the file, so nobody else changes size and time.
Validity validity_of(proto::File_type type, bool leased);

/// One of "replicas", "tier", "failure-domain", "chunk-size" as text. Errors: not_found.
Outcome<std::string> attribute_text(proto::Attributes const& attributes, std::string_view name);
/// The change that sets it. Errors: not_found, bad_request.
Outcome<proto::Attributes> attribute_change(std::string_view name, std::string const& value);
/// Names of all of them, each with "user.pstorage." before and a zero byte behind.
std::string attribute_list();
inline constexpr std::string_view attribute_prefix = "user.pstorage.";

}  // namespace pstorage::mount

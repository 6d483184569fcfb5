#include "core/cli/run_as.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>

namespace pstorage::cli {
namespace {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
};

Outcome<User> find_user(std::string const& name) {
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> strings;
  int const status = ::getpwnam_r(name.c_str(), &entry, strings.data(), strings.size(), &found);
  if (found != nullptr) return User{entry.pw_uid, entry.pw_gid};
  if (status != 0) {
    std::error_code const code(status, std::generic_category());
    return failure(code, "cannot look up the user '" + name + "': " + code.message());
  }
  return failure(Errc::not_found, "there is no user '" + name +
                                      "': make one with 'adduser --system --group " + name +
                                      "' or give another with -u");
}

Failure cannot(std::string const& what) {
  std::error_code const code(errno, std::generic_category());
  return failure(code, "cannot " + what + ": " + code.message());
}

Outcome<void> give(std::string const& path, User user) {
  struct stat now {};
  if (::lstat(path.c_str(), &now) != 0) return cannot("look at " + path);
  if (now.st_uid == user.uid && now.st_gid == user.gid) return success();
  if (::lchown(path.c_str(), user.uid, user.gid) != 0) return cannot("give " + path + " away");
  return success();
}

Outcome<void> give_tree(std::string const& root, User user) {
  std::error_code error;
  if (std::filesystem::is_directory(std::filesystem::symlink_status(root, error))) {
    std::filesystem::recursive_directory_iterator entry(root, error);
    for (std::filesystem::recursive_directory_iterator const end; !error && entry != end;
         entry.increment(error)) {
      PS_CHECK(give(entry->path().string(), user));
    }
    if (error) return failure(error, "cannot look through " + root + ": " + error.message());
  }
  return give(root, user);
}

}  // namespace

Outcome<void> run_as(std::string const& user, std::vector<std::string> const& paths) {
  PS_TRY(auto const wanted, find_user(user));
  if (::geteuid() == wanted.uid) return success();
  if (::geteuid() != 0)
    return failure(Errc::refused, "only root can run this as '" + user + "': leave out -u");
  for (auto const& path : paths) PS_CHECK(give_tree(path, wanted));
  if (::setgroups(0, nullptr) != 0 || ::setgid(wanted.gid) != 0 || ::setuid(wanted.uid) != 0)
    return cannot("become '" + user + "'");
  for (auto const& path : paths) {
    if (::access(path.c_str(), R_OK | W_OK) != 0)
      return failure(Errc::refused, "the user '" + user + "' cannot reach " + path +
                                        ": let others search the directories above it (chmod o+x), "
                                        "or give another user with -u");
  }
  return success();
}

}  // namespace pstorage::cli

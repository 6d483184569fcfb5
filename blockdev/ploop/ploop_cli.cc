#include "blockdev/ploop/ploop_cli.h"

#include <unistd.h>

#include <cstdio>

#include "core/size.h"

namespace pstorage::ploop {

Ploop_cli::Ploop_cli() {
  app_.name("pstorage-ploop");
  app_.set_version_flag("-V,--version", "pstorage-ploop " PSTORAGE_VERSION);
  app_.require_subcommand(1);
  app_.footer(
      "Sizes: a number with K, M, G or T; without, in sectors of 512 bytes.\n"
      "Exit codes are ploop's: 0 done, 1 cannot create, 4 cannot open, 6 cannot read, 7 cannot "
      "write,\n11 image damaged, 23 locked, 37 image in use, 38 bad parameter, 39 bad descriptor,\n"
      "43 no such snapshot.");
}

CLI::App* Ploop_cli::add(std::string const& name, std::string const& description, Action action) {
  auto* const command = app_.add_subcommand(name, description);
  commands_.push_back({command, std::move(action)});
  return command;
}

Progress Ploop_cli::progress(std::string const& what) const {
  if (::isatty(STDERR_FILENO) == 0) return [](std::uint64_t, std::uint64_t) {};
  auto const last = std::make_shared<std::uint64_t>(~std::uint64_t{0});
  return [what, last](std::uint64_t done, std::uint64_t all) {
    auto const percent = all == 0 ? 100 : done * 100 / all;
    if (percent == *last) return;
    *last = percent;
    std::fprintf(stderr, "\r%s: %llu %%%s", what.c_str(), static_cast<unsigned long long>(percent),
                 done == all ? "\n" : "");
  };
}

int Ploop_cli::run(int argc, char const* const* argv) {
  try {
    app_.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app_.exit(error);  // --help, --version
    auto const unknown = app_.remaining(true);
    std::string const what =
        unknown.empty() ? error.what() : "unknown command or option '" + unknown.front() + "'";
    std::fprintf(stderr, "pstorage-ploop: %s; try 'pstorage-ploop --help'\n", what.c_str());
    return static_cast<int>(Exit::parameter);
  }
  for (auto const& command : commands_) {
    if (!command.app->parsed()) continue;
    auto const done = command.action();
    std::fflush(stdout);
    if (done.has_value()) return 0;
    std::fprintf(stderr, "pstorage-ploop: %s\n", done.error().text.c_str());
    return exit_code(done.error());
  }
  return static_cast<int>(Exit::parameter);
}

Outcome<Opened_disk> open_disk(std::string const& path, bool to_change) {
  auto const [directory, name] = split_path(path);
  Opened_disk opened;
  opened.name = name;
  PS_TRY(opened.directory, Local_directory::open(directory));
  auto& images = opened.directory->images();
  if (!images.exists(name))
    return exit_with(Exit::descriptor, "cannot open " + path + ": there is no such file");
  if (to_change) {
    auto const locked = opened.directory->lock(name);
    if (!locked.has_value()) return exit_with(Exit::lock, locked.error());
  }
  auto disk = Virtual_disk::open(images, name);
  if (!disk.has_value()) return exit_with(Exit::descriptor, disk.error());
  opened.disk = std::make_unique<Virtual_disk>(std::move(disk).value());
  return opened;
}

Outcome<std::uint64_t> parse_sectors(std::string const& text) {
  bool const is_plain = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  auto const parsed = parse_size(text);
  if (!parsed.has_value()) return exit_with(Exit::parameter, parsed.error());
  auto const value = parsed.value();
  if (value == 0 || (is_plain && value > disk_bytes_max / sector_bytes) ||
      (!is_plain && value % sector_bytes != 0))
    return exit_with(Exit::parameter, "bad size '" + text +
                                          "': give a number of sectors of 512 bytes, or a number "
                                          "with K, M, G or T");
  return is_plain ? value * sector_bytes : value;
}

}  // namespace pstorage::ploop

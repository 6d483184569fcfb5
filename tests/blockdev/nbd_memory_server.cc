// NBD server over volumes in memory, for tests with real clients and for measuring the NBD hop.
// nbd_memory_server SOCKET|ADDR:PORT NAME=SIZE... ; --null NAME=SIZE: answers without storing.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "blockdev/nbd_server.h"
#include "core/size.h"
#include "tests/blockdev/memory_volume.h"
#include "tests/blockdev/null_volume.h"

namespace pstorage::nbd::test {
namespace {

int fail(std::string const& text) {
  std::fprintf(stderr, "nbd_memory_server: %s\n", text.c_str());
  return 1;
}

int serve(std::vector<std::string> const& arguments) {
  auto log = make_log("", Log_level::warn);
  if (!log) return fail(log.error().text);
  Runtime runtime({}, *log.value());
  Defer const defer = [&runtime](std::function<void()> work) { runtime.post(std::move(work)); };
  Memory_provider memory(defer);
  Null_provider null(runtime);
  bool const is_null = arguments.size() > 2 && arguments[1] == "--null";
  if (arguments.size() < 2) return fail("usage: nbd_memory_server ADDRESS [--null] NAME=SIZE...");
  for (std::size_t i = is_null ? 2 : 1; i < arguments.size(); ++i) {
    auto const equals = arguments[i].find('=');
    if (equals == std::string::npos) return fail("give NAME=SIZE");
    auto const size = parse_size(arguments[i].substr(equals + 1));
    if (!size) return fail(size.error().text);
    auto const name = arguments[i].substr(0, equals);
    if (is_null)
      null.add(name, size.value());
    else
      memory.add(name, size.value());
  }
  Volume_provider& provider = is_null ? static_cast<Volume_provider&>(null) : memory;
  Nbd_server server(runtime, provider, {});
  auto const at = Address::parse(arguments[0], 10809);
  if (!at) return fail(at.error().text);
  auto const real = server.listen(at.value());
  if (!real) return fail(real.error().text);
  std::printf("%s\n", real.value().text().c_str());
  std::fflush(stdout);
  runtime.set_stop_handler([&] { server.stop([&] { runtime.stop(); }); });
  runtime.run();
  return 0;
}

}  // namespace
}  // namespace pstorage::nbd::test

int main(int count, char** arguments) {
  return pstorage::nbd::test::serve({arguments + 1, arguments + count});
}

// What the server of pstorage-hwflush-check knows: which writes its clients have called durable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pstorage::tools {

/// Pure. Lines in, lines out, both without their line feed:
///
///   client: hello CLIENT BLOCK_BYTES BLOCKS WRITERS     CLIENT: host:directory, no blanks
///   server: last N ...            of each writer the last durable write; 0: none known
///           error TEXT
///   client: kept                  its disk holds all of that, or
///           lost TEXT             it does not
///           done WRITER N         write N is durable
class Flush_ledger {
 public:
  static constexpr std::size_t line_max = 4096;
  static constexpr std::uint32_t writers_max = 256;
  static constexpr std::size_t clients_max = 1000;

  using Session = std::uint64_t;
  struct Answer {
    std::string reply;    // to the client; empty: none
    std::string print;    // for people; empty: nothing
    bool is_end = false;  // of the connection
  };
  Answer on_line(Session session, std::string_view line);
  Answer on_closed(Session session);
  /// Has any disk lied?
  bool has_lies() const { return has_lies_; }

 private:
  struct Client {
    std::string shape;
    std::vector<std::uint64_t> last;  // a writer
    std::uint64_t told = 0;           // of so many writes
    bool is_connected = false;
  };
  Answer hello(Session session, std::string_view words);
  Answer done(std::string const& name, Client& client, std::string_view words);

  std::map<std::string, Client, std::less<>> clients_;
  std::map<Session, std::string> sessions_;
  bool has_lies_ = false;
};

}  // namespace pstorage::tools

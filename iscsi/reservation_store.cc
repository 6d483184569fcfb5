#include "iscsi/reservation_store.h"

#include <nlohmann/json.hpp>

#include "core/disk/atomic_file.h"

namespace pstorage::iscsi {
namespace {

using nlohmann::json;

constexpr std::size_t file_bytes_max = 1u << 20;
constexpr std::uint32_t format_version = 1;

Failure corrupt(std::string const& why) {
  return failure(Errc::corrupt, "the state of the reservations is damaged: " + why);
}

bool is_reservation_type(int type) { return type == 1 || type == 3 || (type >= 5 && type <= 8); }

/// Throws json::exception on what is not as encode() wrote it.
Versioned_reservations from_json(json const& object) {
  Versioned_reservations read;
  read.version = object.at("version").get<std::uint64_t>();
  read.state.generation = object.at("generation").get<std::uint32_t>();
  read.state.persists = object.at("aptpl").get<bool>();
  for (auto const& one : object.at("registrations")) {
    read.state.registrations.push_back(
        {one.at("port").get<std::string>(), one.at("key").get<std::uint64_t>()});
  }
  if (object.contains("holder")) {
    auto const& holder = object.at("holder");
    read.state.holder = Holder{holder.at("port").get<std::string>(),
                               static_cast<Reservation_type>(holder.at("type").get<int>())};
  }
  return read;
}

class File_store final : public Reservation_store {
 public:
  explicit File_store(std::string path) : path_(std::move(path)) {}

  void load(std::function<void(Outcome<Versioned_reservations>)> done) override { done(read()); }

  void replace(std::uint64_t expected, Reservation_state const& next,
               std::function<void(Outcome<void>)> done) override {
    done(write(expected, next));
  }

 private:
  Outcome<Versioned_reservations> read() const {
    auto const text = read_small_file(path_, file_bytes_max);
    if (!text.has_value() && errc_of(text.error().code) == Errc::not_found) {
      return Versioned_reservations{};
    }
    if (!text.has_value()) return text.error();
    return decode(text.value());
  }

  Outcome<void> write(std::uint64_t expected, Reservation_state const& next) const {
    PS_TRY(auto const current, read());
    if (current.version != expected) {
      return failure(Errc::stale_version, "another gateway has changed the reservations");
    }
    auto const text = encode({expected + 1, next});
    return write_file_atomically(path_, as_bytes(text), 0600);
  }

  std::string path_;
};

class Memory_store final : public Reservation_store {
 public:
  void load(std::function<void(Outcome<Versioned_reservations>)> done) override { done(kept_); }

  void replace(std::uint64_t expected, Reservation_state const& next,
               std::function<void(Outcome<void>)> done) override {
    kept_ = {expected + 1, next};
    done(success());
  }

 private:
  Versioned_reservations kept_;
};

}  // namespace

std::string encode(Versioned_reservations const& reservations) {
  auto const& state = reservations.state;
  json object{{"format", format_version},
              {"version", reservations.version},
              {"generation", state.generation},
              {"aptpl", state.persists},
              {"registrations", json::array()}};
  for (auto const& one : state.registrations) {
    object["registrations"].push_back({{"port", one.port}, {"key", one.key}});
  }
  if (state.holder) {
    object["holder"] = {{"port", state.holder->port},
                        {"type", static_cast<int>(state.holder->type)}};
  }
  return object.dump() + "\n";
}

Outcome<Versioned_reservations> decode(std::string const& text) {
  auto const object = json::parse(text, nullptr, false);
  if (object.is_discarded() || !object.is_object()) return corrupt("it is not JSON");
  try {
    if (object.at("format").get<std::uint32_t>() != format_version) return corrupt("other format");
    auto read = from_json(object);
    if (read.state.registrations.size() > registrations_max) return corrupt("too many entries");
    if (read.state.holder && !is_reservation_type(static_cast<int>(read.state.holder->type))) {
      return corrupt("unknown type");
    }
    return read;
  } catch (json::exception const& error) {
    return corrupt(error.what());
  }
}

std::unique_ptr<Reservation_store> make_file_store(std::string path) {
  return std::make_unique<File_store>(std::move(path));
}

std::unique_ptr<Reservation_store> make_memory_store() { return std::make_unique<Memory_store>(); }

}  // namespace pstorage::iscsi

// The tables of metadata servers, chunk servers and clients.
#include <algorithm>
#include <cstdio>
#include <string_view>

#include "core/cli/output.h"
#include "core/cli/status_lines.h"
#include "core/size.h"

namespace pstorage::cli {
namespace {

using proto::Service;

struct Column {
  char const* header;  // as table_lines() wants it
  unsigned sets;       // a bit a column set
  std::string (*text)(Service const& service, bool is_numeric);
  double (*value)(Service const& service);  // to sort by; null: the text
};

constexpr unsigned every = 0b1111;

std::string number(std::uint64_t value) { return std::to_string(value); }
std::string a_second(std::uint64_t bytes) { return format_size(bytes) + "/s"; }
std::string ops(std::uint64_t operations) { return number(operations) + "ops/s"; }

/// "0.4", "12": milliseconds.
std::string milliseconds(std::uint32_t us) {
  char text[24];
  std::snprintf(text, sizeof text, us < 9950 && us != 0 ? "%.1f" : "%.0f", us / 1000.0);
  return text;
}

std::string latency(Service const& service) {
  return milliseconds(service.io_latency_us()) + "/" + milliseconds(service.io_latency_max_us());
}

std::string percent(double value) {
  char text[24];
  std::snprintf(text, sizeof text, "%.1f%%", value);
  return text;
}

/// Of the master only is known how it does itself.
std::string of_master(Service const& mds, std::string text) {
  return mds.is_master() ? std::move(text) : "-";
}

std::string host_of(Service const& service, bool is_numeric) {
  auto const& address = service.address();
  auto const colon = address.rfind(':');
  if (is_numeric && !address.empty()) return address.substr(0, colon);
  return service.host_name().empty() ? service.name() : service.host_name();
}

/// With the port: several may share a host.
std::string mds_host(Service const& mds, bool is_numeric) {
  auto const colon = mds.address().rfind(':');
  if (is_numeric || mds.host_name().empty() || colon == std::string::npos) return mds.address();
  return mds.host_name() + mds.address().substr(colon);
}

std::vector<Column> const& mds_columns() {
  static std::vector<Column> const columns = {
      {" ", every, [](Service const& s, bool) { return std::string(s.is_master() ? "M" : ""); },
       [](Service const& s) { return s.is_master() ? 0.0 : 1.0; }},
      {">MDSID", every, [](Service const& s, bool) { return number(s.id()); },
       [](Service const& s) { return static_cast<double>(s.id()); }},
      {"STATUS", every, [](Service const& s, bool) { return s.state(); }, nullptr},
      {">%CTIME", every,
       [](Service const& s, bool) { return of_master(s, percent(s.commit_percent())); },
       [](Service const& s) { return s.commit_percent(); }},
      {">COMMITS", every,
       [](Service const& s, bool) { return of_master(s, number(s.commits_per_s()) + "/s"); },
       [](Service const& s) { return static_cast<double>(s.commits_per_s()); }},
      {">%CPU", every,
       [](Service const& s, bool) { return of_master(s, percent(s.cpu_percent())); },
       [](Service const& s) { return s.cpu_percent(); }},
      {">MEM", every,
       [](Service const& s, bool) { return of_master(s, format_size(s.memory_bytes())); },
       [](Service const& s) { return static_cast<double>(s.memory_bytes()); }},
      {">UPTIME", every,
       [](Service const& s, bool) { return of_master(s, duration_text(s.uptime_ms())); },
       [](Service const& s) { return static_cast<double>(s.uptime_ms()); }},
      {">LAG", every, [](Service const& s, bool) { return number(s.lag()); },
       [](Service const& s) { return static_cast<double>(s.lag()); }},
      {"HOST", every, mds_host, nullptr},
  };
  return columns;
}

/// The columns of every table that has reads and writes.
std::vector<Column> rates(unsigned sets) {
  return {
      {">READ", sets, [](Service const& s, bool) { return a_second(s.read_bytes_per_s()); },
       [](Service const& s) { return static_cast<double>(s.read_bytes_per_s()); }},
      {">WRITE", sets, [](Service const& s, bool) { return a_second(s.write_bytes_per_s()); },
       [](Service const& s) { return static_cast<double>(s.write_bytes_per_s()); }},
      {">RD_OPS", sets, [](Service const& s, bool) { return ops(s.read_ops_per_s()); },
       [](Service const& s) { return static_cast<double>(s.read_ops_per_s()); }},
      {">WR_OPS", sets, [](Service const& s, bool) { return ops(s.write_ops_per_s()); },
       [](Service const& s) { return static_cast<double>(s.write_ops_per_s()); }},
      {">FSYNCS", sets, [](Service const& s, bool) { return ops(s.syncs_per_s()); },
       [](Service const& s) { return static_cast<double>(s.syncs_per_s()); }},
  };
}

Column latency_column(unsigned sets) {
  return {">IOLAT(ms)", sets, [](Service const& s, bool) { return latency(s); },
          [](Service const& s) { return static_cast<double>(s.io_latency_us()); }};
}

std::vector<Column> cs_space_columns() {
  return {
      {">CSID", every, [](Service const& s, bool) { return number(s.id()); },
       [](Service const& s) { return static_cast<double>(s.id()); }},
      {"STATUS", every, [](Service const& s, bool) { return s.state(); }, nullptr},
      {">SPACE", 0b1001, [](Service const& s, bool) { return format_size(s.total_bytes()); },
       [](Service const& s) { return static_cast<double>(s.total_bytes()); }},
      {">AVAIL", 0b1001, [](Service const& s, bool) { return format_size(s.free_bytes()); },
       [](Service const& s) { return static_cast<double>(s.free_bytes()); }},
      {">TIER", 0b0100, [](Service const& s, bool) { return number(s.tier()); },
       [](Service const& s) { return static_cast<double>(s.tier()); }},
      {">REPLICAS", 0b1101, [](Service const& s, bool) { return number(s.replicas()); },
       [](Service const& s) { return static_cast<double>(s.replicas()); }},
      {">UNIQUE", 0b1001, [](Service const& s, bool) { return number(s.unique()); },
       [](Service const& s) { return static_cast<double>(s.unique()); }},
      {">IOWAIT", 0b1001, [](Service const& s, bool) { return number(s.io_wait_percent()) + "%"; },
       [](Service const& s) { return static_cast<double>(s.io_wait_percent()); }},
  };
}

std::vector<Column> cs_other_columns() {
  return {
      {">QDEPTH", 0b1001, [](Service const& s, bool) { return number(s.queue_depth()); },
       [](Service const& s) { return static_cast<double>(s.queue_depth()); }},
      {">REPL_IO", 0b0100, [](Service const& s, bool) { return a_second(s.pulled_bytes_per_s()); },
       [](Service const& s) { return static_cast<double>(s.pulled_bytes_per_s()); }},
      {">CLOCK(ms)", 0b0100,
       [](Service const& s, bool) { return std::to_string(s.clock_offset_ms()); },
       [](Service const& s) { return static_cast<double>(s.clock_offset_ms()); }},
      {"VERSION", 0b0100, [](Service const& s, bool) { return s.version(); }, nullptr},
      {"HOST", every, host_of, nullptr},
      {"FLAGS", 0b1100,
       [](Service const& s, bool) { return s.flags() + (s.slow() ? " slow" : ""); }, nullptr},
  };
}

std::vector<Column> const& cs_columns() {
  static std::vector<Column> const columns = [] {
    auto all = cs_space_columns();
    for (auto const& column : rates(0b0010)) all.push_back(column);
    all.push_back(latency_column(0b1011));
    for (auto const& column : cs_other_columns()) all.push_back(column);
    return all;
  }();
  return columns;
}

std::vector<Column> const& client_columns() {
  static std::vector<Column> const columns = [] {
    std::vector<Column> all = {
        // Ids are random: the half tells them apart, and the screen has room for the host.
        {"CLID", 0b0111, [](Service const& s, bool) { return hex_text(s.id()).substr(0, 8); },
         nullptr},
        {"CLID", 0b1000, [](Service const& s, bool) { return hex_text(s.id()); }, nullptr},
        {">LEASES", every, [](Service const& s, bool) { return number(s.leases()); },
         [](Service const& s) { return static_cast<double>(s.leases()); }},
    };
    for (auto const& column : rates(every)) all.push_back(column);
    all.push_back(latency_column(every));
    all.push_back({"HOST", 0b0111, host_of, nullptr});
    all.push_back({"HOST", 0b1000, [](Service const& s, bool) { return s.name(); }, nullptr});
    return all;
  }();
  return columns;
}

std::vector<Column> const& all_columns(Table_kind kind) {
  switch (kind) {
    case Table_kind::mds:
      return mds_columns();
    case Table_kind::cs:
      return cs_columns();
    case Table_kind::client:
      break;
  }
  return client_columns();
}

char const* kind_name(Table_kind kind) {
  return kind == Table_kind::mds ? "MDS" : kind == Table_kind::cs ? "CS" : "CLIENT";
}

Style style_of(Service const& service) {
  auto const& state = service.state();
  if (service.kind() == "MDS") return state == "avail" ? Style::plain : Style::warning;
  if (service.kind() == "CLIENT") return Style::plain;
  if (state.starts_with("offline") || state.starts_with("failed")) return Style::bad;
  return state == "active" && !service.slow() ? Style::plain : Style::warning;
}

/// Below zero, zero, above: as `a` is to stand before, with or behind `b`.
int compare(Column const& column, Service const& a, Service const& b, bool is_numeric) {
  if (column.value == nullptr)
    return column.text(a, is_numeric).compare(column.text(b, is_numeric));
  auto const first = column.value(a);
  auto const second = column.value(b);
  return first < second ? -1 : first > second ? 1 : 0;
}

std::string name_of(Column const& column) {
  std::string const header = column.header;
  return header.starts_with('>') ? header.substr(1) : header;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  return text.substr(0, text.find('('));
}

}  // namespace

std::vector<Line> service_lines(proto::Status_reply const& status, Table_kind kind,
                                Table_options const& options) {
  auto const& columns = all_columns(kind);
  std::vector<Service const*> services;
  for (auto const& service : status.services()) {
    if (service.kind() == kind_name(kind)) services.push_back(&service);
  }
  std::stable_sort(services.begin(), services.end(), [&](auto const* a, auto const* b) {
    for (auto const& key : options.sort) {
      auto const order = compare(columns[key.column], *a, *b, options.is_numeric);
      if (order != 0) return (order < 0) != key.is_inverted;
    }
    return false;
  });
  std::vector<std::string> headers;
  for (auto const& column : columns) {
    if ((column.sets >> options.set & 1) != 0) headers.emplace_back(column.header);
  }
  std::vector<Table_row> rows;
  for (auto const* const service : services) {
    auto& row = rows.emplace_back();
    row.style = style_of(*service);
    for (auto const& column : columns) {
      if ((column.sets >> options.set & 1) == 0) continue;
      row.cells.push_back(column.text(*service, options.is_numeric));
    }
  }
  return table_lines(headers, rows);
}

std::vector<Column_name> columns_of(Table_kind kind, unsigned set) {
  auto const& columns = all_columns(kind);
  std::vector<Column_name> names;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if ((columns[i].sets >> set & 1) != 0) names.push_back({i, name_of(columns[i])});
  }
  return names;
}

Outcome<std::vector<Sort_key>> parse_sort(Table_kind kind, std::string const& text) {
  auto const& columns = all_columns(kind);
  std::vector<Sort_key> keys;
  for (std::size_t at = 0; at <= text.size();) {
    auto const end = std::min(text.find(',', at), text.size());
    auto word = text.substr(at, end - at);
    at = end + 1;
    Sort_key key;
    if (auto const equals = word.find('='); equals != std::string::npos) {
      if (word.substr(equals) != "=inv") {
        return failure(Errc::bad_request, "'" + word + "': only '=inv' may follow a column");
      }
      key.is_inverted = true;
      word.resize(equals);
    }
    auto const found = std::find_if(columns.begin(), columns.end(), [&](auto const& column) {
      return lower(name_of(column)) == lower(word);
    });
    if (found == columns.end() || word.empty()) {
      std::string all;
      for (auto const& column : columns) {
        auto const name = " " + lower(name_of(column));
        if (name != "  " && all.find(name + " ") == std::string::npos) all += name + " ";
      }
      return failure(Errc::bad_request, "no column '" + word + "' to sort by: there are" + all);
    }
    key.column = static_cast<std::size_t>(found - columns.begin());
    keys.push_back(key);
  }
  return keys;
}

}  // namespace pstorage::cli

// What stat and top show of the cluster: a summary, and tables of its services.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cli/lines.h"
#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::cli {

/// Which lines of the summary there are beside the first ones.
struct Summary_parts {
  bool data = true;    // Replication, Chunks, FS
  bool totals = true;  // IO total, Sync rate, Repair, Scrub
};
/// Pure. Without `data` the chunks are told of only when something is wrong with them, without
/// `totals` the repair only while there is one.
std::vector<Line> summary_lines(proto::Status_reply const& status, Summary_parts parts);

enum class Table_kind { mds, cs, client };

/// By the values of a column; the tables are small.
struct Sort_key {
  std::size_t column = 0;
  bool is_inverted = false;
};

/// The column sets of the table of chunk servers: those of top in turn, and that of stat.
inline constexpr unsigned cs_sets = 3;
inline constexpr unsigned stat_set = 3;

struct Table_options {
  bool is_numeric = false;  // addresses instead of names of hosts
  unsigned set = stat_set;
  std::vector<Sort_key> sort;  // the first one decides
};
/// Pure. The header and a line a service; clients that hold nothing are listed, too.
std::vector<Line> service_lines(proto::Status_reply const& status, Table_kind kind,
                                Table_options const& options);
/// A column by its place in the table with all columns, for Sort_key.
struct Column_name {
  std::size_t column = 0;
  std::string name;  // as in the header
};
/// The columns of a set, from left to right.
std::vector<Column_name> columns_of(Table_kind kind, unsigned set);
/// "IOLAT,host=inv": columns in either case, without what is in brackets. Errors: bad_request,
/// which names the columns.
Outcome<std::vector<Sort_key>> parse_sort(Table_kind kind, std::string const& text);

/// The header and a line an event.
std::vector<Line> event_lines(google::protobuf::RepeatedPtrField<proto::Event> const& events);

}  // namespace pstorage::cli

#include "core/cli/output.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "core/cli/lines.h"

namespace pstorage::cli {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

json value_of(Message const& message, FieldDescriptor const& field) {
  auto const& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64: {
      auto const value = reflection.GetUInt64(message, &field);
      // Ids of hosts and repositories: as they are written everywhere else.
      if (field.type() == FieldDescriptor::TYPE_FIXED64) return hex_text(value);
      return value;
    }
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.GetEnum(message, &field)->name();
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return to_json(reflection.GetMessage(message, &field));
  }
  return nullptr;
}

json element_of(Message const& message, FieldDescriptor const& field, int index) {
  auto const& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetRepeatedUInt32(message, &field, index);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.GetRepeatedUInt64(message, &field, index);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetRepeatedString(message, &field, index);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return to_json(reflection.GetRepeatedMessage(message, &field, index));
    default:
      return nullptr;  // mds.proto repeats nothing else
  }
}

json map_of(Message const& message, FieldDescriptor const& field) {
  json object = json::object();
  auto const& reflection = *message.GetReflection();
  auto const& entry = *field.message_type();
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    auto const& one = reflection.GetRepeatedMessage(message, &field, i);
    object[one.GetReflection()->GetString(one, entry.map_key())] =
        value_of(one, *entry.map_value());
  }
  return object;
}

}  // namespace

json to_json(Message const& message) {
  json object = json::object();
  auto const& descriptor = *message.GetDescriptor();
  auto const& reflection = *message.GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    auto const& field = *descriptor.field(i);
    if (field.is_map()) {
      object[field.name()] = map_of(message, field);
    } else if (field.is_repeated()) {
      json list = json::array();
      for (int j = 0; j < reflection.FieldSize(message, &field); ++j) {
        list.push_back(element_of(message, field, j));
      }
      object[field.name()] = std::move(list);
    } else if (!field.has_presence() || reflection.HasField(message, &field)) {
      object[field.name()] = value_of(message, field);
    }
  }
  return object;
}

void print_json(json const& value) { std::printf("%s\n", value.dump(2).c_str()); }

namespace {

std::string xml_escaped(std::string const& text) {
  std::string out;
  for (char const c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (static_cast<unsigned char>(c) >= 0x20) {  // others may not be in XML at all
      out += c;
    }
  }
  return out;
}

void append_xml(std::string& out, std::string const& name, json const& value, int depth) {
  if (value.is_array()) {
    for (auto const& element : value) append_xml(out, name, element, depth);
    return;
  }
  std::string const indent(static_cast<std::size_t>(depth) * 2, ' ');
  out += indent + "<" + name + ">";
  if (value.is_object()) {
    out += "\n";
    for (auto const& [key, child] : value.items()) append_xml(out, key, child, depth + 1);
    out += indent;
  } else {
    out += xml_escaped(value.is_string() ? value.get<std::string>() : value.dump());
  }
  out += "</" + name + ">\n";
}

}  // namespace

std::string xml_text(std::string const& root, json const& value) {
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  append_xml(out, root, value, 0);
  out.pop_back();
  return out;
}

void print_table(std::vector<std::string> const& headers,
                 std::vector<std::vector<std::string>> const& rows) {
  std::vector<Table_row> plain;
  for (auto const& row : rows) plain.push_back({row});
  print_lines(table_lines(headers, plain));
}

std::string duration_text(std::uint64_t milliseconds) {
  auto const seconds = milliseconds / 1000;
  auto const part = [](std::uint64_t value, char unit) { return std::to_string(value) + unit; };
  if (seconds < 60) return part(seconds, 's');
  if (seconds < 3600) return part(seconds / 60, 'm') + " " + part(seconds % 60, 's');
  if (seconds < 86400) return part(seconds / 3600, 'h') + " " + part(seconds % 3600 / 60, 'm');
  return part(seconds / 86400, 'd') + " " + part(seconds % 86400 / 3600, 'h');
}

std::string time_text(std::uint64_t wall_ms) {
  auto const seconds = static_cast<std::time_t>(wall_ms / 1000);
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%d-%m-%y %H:%M:%S", &parts);
  return text;
}

std::string hex_text(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace pstorage::cli

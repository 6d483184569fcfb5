#include "blockdev/ploop/descriptor.h"

#include <algorithm>
#include <charconv>
#include <pugixml.hpp>
#include <sstream>

#include "core/assert.h"

namespace pstorage::ploop {
namespace {

Failure bad(std::string const& what) {
  return failure(Errc::corrupt, "not a usable disk descriptor: " + what);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

std::string guid_in(pugi::xml_node const& node, char const* name) {
  return lower(node.child(name).text().get());
}

bool parse_number(pugi::xml_node const& node, char const* name, std::uint64_t& value) {
  std::string_view const text = node.child(name).text().get();
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

void set_text(pugi::xml_node node, char const* name, std::string const& value) {
  auto child = node.child(name);
  if (!child) child = node.append_child(name);
  child.text().set(value.c_str());
}

void set_geometry(pugi::xml_node parameters, std::uint64_t size_sectors) {
  auto const geometry = geometry_of(size_sectors);
  set_text(parameters, "Disk_size", std::to_string(size_sectors));
  set_text(parameters, "Cylinders", std::to_string(geometry.cylinders));
  set_text(parameters, "Heads", std::to_string(geometry.heads));
  set_text(parameters, "Sectors", std::to_string(geometry.sectors));
}

}  // namespace

bool is_guid(std::string const& text) {
  constexpr std::string_view form = "{hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh}";
  return text.size() == form.size() &&
         std::equal(text.begin(), text.end(), form.begin(), [](char c, char wanted) {
           if (wanted != 'h') return c == wanted;
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
         });
}

std::string new_guid(Random& random) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string guid = "{hhhhhhhh-hhhh-4hhh-ahhh-hhhhhhhhhhhh}";  // RFC 9562, version 4
  for (auto& c : guid)
    if (c == 'h') c = digits[random.below(16)];
  return guid;
}

struct Descriptor::Document {
  pugi::xml_document xml;
  pugi::xml_node root() const { return xml.document_element(); }
  pugi::xml_node parameters() const { return root().child("Disk_Parameters"); }
  pugi::xml_node storage() const { return root().child("StorageData").child("Storage"); }
  pugi::xml_node snapshots() const { return root().child("Snapshots"); }
  pugi::xml_node image(std::string const& guid) const { return entry(storage(), "Image", guid); }
  pugi::xml_node shot(std::string const& guid) const { return entry(snapshots(), "Shot", guid); }

  void add_image(std::string const& guid, std::string const& file, bool is_raw) const {
    auto node = storage().append_child("Image");
    set_text(node, "GUID", guid);
    set_text(node, "Type", is_raw ? "Plain" : "Compressed");
    set_text(node, "File", file);
  }
  void add_shot(std::string const& guid, std::string const& parent) const {
    auto node = snapshots().append_child("Shot");
    set_text(node, "GUID", guid);
    set_text(node, "ParentGUID", parent);
  }

 private:
  static pugi::xml_node entry(pugi::xml_node const& list, char const* name,
                              std::string const& guid) {
    for (auto const& node : list.children(name))
      if (guid_in(node, "GUID") == guid) return node;
    return {};
  }
};

Descriptor::Descriptor(std::unique_ptr<Document> document) : document_(std::move(document)) {}
Descriptor::Descriptor(Descriptor&&) noexcept = default;
Descriptor& Descriptor::operator=(Descriptor&&) noexcept = default;
Descriptor::~Descriptor() = default;

Outcome<Descriptor> Descriptor::parse(std::string const& text) {
  auto document = std::make_unique<Document>();
  auto const parsed = document->xml.load_buffer(
      text.data(), text.size(),
      pugi::parse_default | pugi::parse_comments | pugi::parse_declaration);
  if (!parsed)
    return bad(std::string(parsed.description()) + " at byte " + std::to_string(parsed.offset));
  Descriptor descriptor(std::move(document));
  PS_CHECK(descriptor.read());
  return descriptor;
}

Outcome<void> Descriptor::read() {
  auto const storage = document_->storage();
  if (!storage) return bad("StorageData/Storage is missing");
  if (storage.next_sibling("Storage"))
    return bad("split images (several Storage) are not supported");
  std::uint64_t size = 0;
  std::uint64_t cluster = 0;
  if (!parse_number(document_->parameters(), "Disk_size", size) || size == 0)
    return bad("Disk_Parameters/Disk_size is no size in sectors");
  if (!parse_number(storage, "Blocksize", cluster) || cluster == 0 ||
      cluster > cluster_bytes_max / sector_bytes)
    return bad("Storage/Blocksize is no cluster size in sectors");
  if (!document_->snapshots()) document_->root().append_child("Snapshots");
  auto const snapshots = document_->snapshots();
  top_ = guid_in(snapshots, "TopGUID");
  if (top_.empty()) top_ = top_guid;
  deltas_.clear();
  for (auto const& image : storage.children("Image")) {
    Delta delta;
    delta.guid = guid_in(image, "GUID");
    delta.file = image.child("File").text().get();
    std::string const type = image.child("Type").text().get();
    if (!is_guid(delta.guid)) return bad("Image/GUID '" + delta.guid + "' is no GUID");
    if (delta.file.empty()) return bad("the image " + delta.guid + " has no File");
    if (type != "Compressed" && type != "Plain") return bad("Image/Type '" + type + "' is unknown");
    delta.is_raw = type == "Plain";
    if (find(delta.guid) != nullptr) return bad("the image " + delta.guid + " is there twice");
    if (deltas_.size() == deltas_max) return bad("it has too many images");
    // A disk without snapshots may do without a Shot.
    auto const shot = document_->shot(delta.guid);
    if (!shot && snapshots.child("Shot")) return bad("the image " + delta.guid + " has no Shot");
    if (!shot) document_->add_shot(delta.guid, no_guid);
    delta.parent = guid_in(document_->shot(delta.guid), "ParentGUID");
    delta.name = document_->shot(delta.guid).child("Name").text().get();
    delta.created = document_->shot(delta.guid).child("DateTime").text().get();
    deltas_.push_back(std::move(delta));
  }
  return check_tree();
}

Outcome<void> Descriptor::check_tree() const {
  if (deltas_.empty()) return bad("it has no Image");
  auto const shots = document_->snapshots().children("Shot");
  if (static_cast<std::size_t>(std::distance(shots.begin(), shots.end())) != deltas_.size())
    return bad("the numbers of Image and of Shot differ");
  if (find(top_) == nullptr) return bad("there is no image for its TopGUID " + top_);
  if (top_ != top_guid && find(top_guid) != nullptr)
    return bad(std::string("the image ") + top_guid + " is not its top");
  std::size_t bases = 0;
  for (auto const& delta : deltas_) {
    bases += delta.parent == no_guid ? 1 : 0;
    if (delta.parent != no_guid && find(delta.parent) == nullptr)
      return bad("the parent of " + delta.guid + ", " + delta.parent + ", is missing");
    if (delta.parent != no_guid && delta.is_raw)
      return bad("the image " + delta.guid + " is raw; only the base may be");
    std::size_t steps = 0;
    for (auto const* at = &delta; at->parent != no_guid; at = find(at->parent))
      if (find(at->parent) == nullptr || ++steps > deltas_.size())
        return bad("the parents of " + delta.guid + " lead to no base");
  }
  if (bases != 1) return bad("it has " + std::to_string(bases) + " base images, not one");
  return success();
}

Descriptor Descriptor::make(std::uint64_t size_sectors, std::uint32_t cluster_sectors,
                            std::string const& file, bool is_raw, bool is_preallocated) {
  auto document = std::make_unique<Document>();
  auto declaration = document->xml.append_child(pugi::node_declaration);
  declaration.append_attribute("version") = "1.0";
  auto root = document->xml.append_child("Parallels_disk_image");
  auto parameters = root.append_child("Disk_Parameters");
  set_geometry(parameters, size_sectors);
  set_text(parameters, "Padding", "0");
  auto storage = root.append_child("StorageData").append_child("Storage");
  set_text(storage, "Start", "0");
  set_text(storage, "End", std::to_string(size_sectors));
  set_text(storage, "Blocksize", std::to_string(cluster_sectors));
  if (is_preallocated) set_text(storage, "Preallocated", "1");
  document->add_image(top_guid, file, is_raw);
  set_text(root.append_child("Snapshots"), "TopGUID", top_guid);
  document->add_shot(top_guid, no_guid);
  Descriptor descriptor(std::move(document));
  PS_ASSERT(descriptor.read().has_value());
  return descriptor;
}

std::string Descriptor::text() const {
  std::ostringstream out;
  document_->xml.save(out, "  ");
  return out.str();
}

std::uint64_t Descriptor::size_sectors() const {
  return document_->parameters().child("Disk_size").text().as_ullong();
}
std::uint32_t Descriptor::cluster_sectors() const {
  return document_->storage().child("Blocksize").text().as_uint();
}

Delta const* Descriptor::find(std::string const& guid) const {
  auto const found = std::find_if(deltas_.begin(), deltas_.end(),
                                  [&](Delta const& delta) { return delta.guid == lower(guid); });
  return found == deltas_.end() ? nullptr : &*found;
}

std::vector<Delta const*> Descriptor::children_of(std::string const& guid) const {
  std::vector<Delta const*> children;
  for (auto const& delta : deltas_)
    if (delta.parent == lower(guid)) children.push_back(&delta);
  return children;
}

std::vector<Delta> Descriptor::chain_to(std::string const& guid) const {
  std::vector<Delta> chain;
  for (auto const* at = find(guid); at != nullptr; at = find(at->parent)) chain.push_back(*at);
  std::reverse(chain.begin(), chain.end());
  return chain;
}

void Descriptor::set_size(std::uint64_t size_sectors) {
  set_geometry(document_->parameters(), size_sectors);
  set_text(document_->storage(), "End", std::to_string(size_sectors));
}

void Descriptor::set_preallocated() {
  auto storage = document_->storage();
  // ploop takes everything behind the first Image for another Image.
  if (!storage.child("Preallocated"))
    storage.insert_child_after("Preallocated", storage.child("Blocksize"));
  set_text(storage, "Preallocated", "1");
}

void Descriptor::push_top(std::string const& snapshot, std::string const& file,
                          std::string const& name, std::string const& created) {
  auto const guid = lower(snapshot);
  set_text(document_->image(top_), "GUID", guid);
  set_text(document_->shot(top_), "GUID", guid);
  if (!name.empty()) set_text(document_->shot(guid), "Name", name);
  if (!created.empty()) set_text(document_->shot(guid), "DateTime", created);
  document_->add_image(top_guid, file, false);
  document_->add_shot(top_guid, guid);
  set_text(document_->snapshots(), "TopGUID", top_guid);
  PS_ASSERT(read().has_value());
}

void Descriptor::replace_top(std::string const& parent, std::string const& file) {
  document_->storage().remove_child(document_->image(top_));
  document_->snapshots().remove_child(document_->shot(top_));
  document_->add_image(top_guid, file, false);
  document_->add_shot(top_guid, lower(parent));
  set_text(document_->snapshots(), "TopGUID", top_guid);
  PS_ASSERT(read().has_value());
}

void Descriptor::remove(std::string const& guid) {
  document_->storage().remove_child(document_->image(lower(guid)));
  document_->snapshots().remove_child(document_->shot(lower(guid)));
  PS_ASSERT(read().has_value());
}

void Descriptor::merge_up(std::string const& parent) {
  auto const guid = lower(parent);
  auto const grandparent = find(guid)->parent;
  auto const child = children_of(guid).front()->guid;
  document_->storage().remove_child(document_->image(guid));
  document_->snapshots().remove_child(document_->shot(guid));
  set_text(document_->shot(child), "ParentGUID", grandparent);
  PS_ASSERT(read().has_value());
}

void Descriptor::merge_down(std::string const& child) {
  auto const guid = lower(child);
  auto const parent = find(guid)->parent;
  auto const grandparent = find(parent)->parent;
  document_->storage().remove_child(document_->image(guid));
  document_->snapshots().remove_child(document_->shot(parent));
  set_text(document_->image(parent), "GUID", guid);
  set_text(document_->shot(guid), "ParentGUID", grandparent);
  PS_ASSERT(read().has_value());
}

void Descriptor::set_file(std::string const& guid, std::string const& file, bool is_raw) {
  auto const image = document_->image(lower(guid));
  set_text(image, "File", file);
  set_text(image, "Type", is_raw ? "Plain" : "Compressed");
  PS_ASSERT(read().has_value());
}

}  // namespace pstorage::ploop

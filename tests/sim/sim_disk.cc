#include "tests/sim/sim_disk.h"

#include <cerrno>
#include <set>

#include "tests/sim/sim_inode.h"

namespace pstorage::sim {
namespace {

std::error_code system_error(int code) { return {code, std::system_category()}; }

std::string parent_of(std::string const& name) {
  auto const slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

}  // namespace

class Sim_file final : public File {
 public:
  Sim_file(Sim_disk& disk, std::shared_ptr<Sim_disk::Inode> inode, std::string name)
      : disk_(disk), inode_(std::move(inode)), name_(std::move(name)), life_(disk.life_) {}

  Result<void> write(std::uint64_t offset, std::span<Bytes const> parts) override {
    PS_CHECK(check(Disk_call::write));
    Sim_disk::Inode::Unsynced operation;
    operation.offset = offset;
    for (Bytes part : parts) {
      operation.bytes.insert(operation.bytes.end(), part.begin(), part.end());
    }
    if (operation.bytes.empty()) return success();
    if (!has_space(offset, operation.bytes.size())) return system_error(ENOSPC);
    inode_->add(std::move(operation));
    return success();
  }
  Result<void> read(std::uint64_t offset, Mutable_bytes to) override {
    PS_CHECK(check(Disk_call::read));
    read_now(offset, to);
    return success();
  }
  Result<void> read_cached(std::uint64_t offset, Mutable_bytes to) override {
    if (disk_.random_.below(100) < disk_.options_.would_block_percent) return Errc::would_block;
    return read(offset, to);
  }
  void read_async(std::uint64_t offset, Mutable_bytes to, Disk_completion done) override {
    auto const failed = check(Disk_call::read);
    later(disk_.options_.read_time, [this, failed, offset, to, done = std::move(done)] {
      if (failed.has_value()) read_now(offset, to);
      done(failed);
    });
  }
  void sync_async(Disk_completion done) override {
    auto const failed = check(Disk_call::sync);
    auto const mark = inode_->mark();
    later(disk_.options_.sync_time, [this, failed, mark, done = std::move(done)] {
      if (failed.has_value()) inode_->make_durable(mark);
      done(failed);
    });
  }
  Result<void> sync() override {
    PS_CHECK(check(Disk_call::sync));
    inode_->make_durable(inode_->mark());
    return success();
  }
  Result<void> punch_hole(std::uint64_t offset, std::uint64_t length) override {
    PS_CHECK(check(Disk_call::punch));
    inode_->add({Sim_disk::Inode::Kind::punch, offset, length, {}});
    return success();
  }
  Result<void> truncate(std::uint64_t size) override {
    PS_CHECK(check(Disk_call::truncate));
    inode_->add({Sim_disk::Inode::Kind::truncate, 0, size, {}});
    return success();
  }
  Result<std::uint64_t> size() override { return inode_->seen.size; }
  Result<std::uint64_t> allocated_bytes() override { return inode_->seen.allocated_bytes(); }

 private:
  Result<void> check(Disk_call call) {
    if (life_ != disk_.life_) return system_error(EBADF);
    if (auto error = disk_.fault(call, name_)) return *error;
    return success();
  }
  bool has_space(std::uint64_t offset, std::uint64_t length) const {
    if (disk_.options_.capacity_bytes >= unlimited_bytes) return true;
    std::uint64_t fresh = 0;
    for (auto page = offset / page_bytes; page <= (offset + length - 1) / page_bytes; ++page) {
      fresh += inode_->seen.has_page(page) ? 0 : page_bytes;
    }
    return fresh == 0 || disk_.used_bytes() + fresh <= disk_.options_.capacity_bytes;
  }
  // Past the end of a file are zeros: truncate() leaves none of the old bytes there.
  void read_now(std::uint64_t offset, Mutable_bytes to) { inode_->seen.read(offset, to); }
  void later(Duration delay, std::function<void()> work) {
    disk_.later(delay, [alive = std::weak_ptr<bool>(alive_), work = std::move(work)] {
      if (!alive.expired()) work();
    });
  }

  Sim_disk& disk_;
  std::shared_ptr<Sim_disk::Inode> inode_;
  std::string name_;
  std::uint64_t life_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

Sim_disk::Sim_disk(Sim_scheduler& scheduler, Random& random, Sim_disk_options options)
    : scheduler_(scheduler), random_(random), options_(options) {}

Sim_disk::~Sim_disk() = default;

std::optional<std::error_code> Sim_disk::fault(Disk_call call, std::string const& name) {
  ++calls_;
  return fault_ ? fault_(call, name) : std::nullopt;
}

void Sim_disk::later(Duration delay, std::function<void()> work) {
  Duration const stall = stalled_until_ - scheduler_.now();
  scheduler_.at(std::max(delay + slowness_, stall),
                [this, life = life_, alive = std::weak_ptr<bool>(alive_), work = std::move(work)] {
                  if (!alive.expired() && life == life_) work();
                });
}

bool Sim_disk::is_directory(std::string const& name) const {
  if (name.empty()) return true;
  auto const found = names_.find(name);
  return found != names_.end() && found->second.is_directory;
}

void Sim_disk::change(Change change) {
  for (auto const& [name, node] : change.sets) {
    if (node) {
      names_[name] = *node;
    } else {
      names_.erase(name);
    }
  }
  changes_.push_back(std::move(change));
}

Result<std::unique_ptr<File>> Sim_disk::open(std::string const& name, Open_mode mode) {
  if (auto error = fault(Disk_call::open, name)) return *error;
  auto found = names_.find(name);
  if (found != names_.end() && found->second.is_directory) return system_error(EISDIR);
  if (found != names_.end() && mode.create && mode.exclusive) return system_error(EEXIST);
  if (found == names_.end()) {
    if (!mode.create || !is_directory(parent_of(name))) return system_error(ENOENT);
    change({{{name, Node{false, std::make_shared<Inode>()}}}});
    found = names_.find(name);
  }
  return std::unique_ptr<File>(new Sim_file(*this, found->second.file, name));
}

bool Sim_disk::exists(std::string const& name) { return name.empty() || names_.contains(name); }

Result<std::vector<std::string>> Sim_disk::list(std::string const& name) {
  if (!is_directory(name)) return system_error(ENOENT);
  std::string const prefix = name.empty() ? "" : name + "/";
  std::vector<std::string> found;
  for (auto it = names_.lower_bound(prefix); it != names_.end(); ++it) {
    if (!it->first.starts_with(prefix)) break;
    std::string const rest = it->first.substr(prefix.size());
    if (!rest.empty() && rest.find('/') == std::string::npos) found.push_back(rest);
  }
  return found;
}

Result<void> Sim_disk::make_directory(std::string const& name) {
  if (auto error = fault(Disk_call::make_directory, name)) return *error;
  if (exists(name)) return system_error(EEXIST);
  if (!is_directory(parent_of(name))) return system_error(ENOENT);
  change({{{name, Node{true, nullptr}}}});
  return success();
}

Result<void> Sim_disk::remove(std::string const& name) {
  if (auto error = fault(Disk_call::remove, name)) return *error;
  if (!names_.contains(name)) return system_error(ENOENT);
  if (is_directory(name) && !list(name).value().empty()) return system_error(ENOTEMPTY);
  change({{{name, std::nullopt}}});
  return success();
}

Result<void> Sim_disk::rename(std::string const& from, std::string const& to) {
  if (auto error = fault(Disk_call::rename, from)) return *error;
  auto const found = names_.find(from);
  if (found == names_.end() || !is_directory(parent_of(to))) return system_error(ENOENT);
  if (found->second.is_directory && !list(from).value().empty()) return system_error(EXDEV);
  if (exists(to) && is_directory(to) != found->second.is_directory) return system_error(EISDIR);
  Node const node = found->second;
  if (from != to) change({{{to, node}, {from, std::nullopt}}});
  return success();
}

void Sim_disk::make_durable(std::string const& directory, std::size_t changes) {
  std::vector<Change> rest;
  for (std::size_t i = 0; i < changes_.size(); ++i) {
    bool concerned = false;
    for (auto const& [name, node] : changes_[i].sets) {
      concerned = concerned || parent_of(name) == directory;
    }
    if (i >= changes || !concerned) {
      rest.push_back(std::move(changes_[i]));
      continue;
    }
    for (auto const& [name, node] : changes_[i].sets) {
      if (node) {
        durable_[name] = *node;
      } else {
        durable_.erase(name);
      }
    }
  }
  changes_ = std::move(rest);
}

Result<void> Sim_disk::sync_directory(std::string const& name) {
  if (auto error = fault(Disk_call::sync_directory, name)) return *error;
  if (!is_directory(name)) return system_error(ENOENT);
  make_durable(name, changes_.size());
  return success();
}

void Sim_disk::sync_directory_async(std::string const& name, Disk_completion done) {
  // The changes so far become durable at the call: later would be as good, but changes of other
  // directories may leave the list in between.
  auto const result = sync_directory(name);
  later(options_.sync_time, [result, done = std::move(done)] { done(result); });
}

std::uint64_t Sim_disk::used_bytes() const {
  std::set<Inode const*> counted;
  std::uint64_t used = 0;
  for (auto const& [name, node] : names_) {
    if (node.file && counted.insert(node.file.get()).second) {
      used += node.file->seen.allocated_bytes();
    }
  }
  return used;
}

Result<Disk_space> Sim_disk::space() {
  auto const used = used_bytes();
  auto const total = options_.capacity_bytes;
  return Disk_space{total, used < total ? total - used : 0};
}

void Sim_disk::kill() { ++life_; }

void Sim_disk::settle_names() {
  std::set<std::shared_ptr<Inode>> files;
  for (auto const& [name, node] : names_) files.insert(node.file);
  for (Change const& change : changes_) {
    for (auto const& [name, node] : change.sets) {
      if (node) files.insert(node->file);
    }
  }
  for (auto const& [name, node] : durable_) files.insert(node.file);
  files.erase(nullptr);
  for (Change const& change : changes_) {
    if (random_.below(2) == 0) continue;
    for (auto const& [name, node] : change.sets) {
      if (node) {
        durable_[name] = *node;
      } else {
        durable_.erase(name);
      }
    }
  }
  changes_.clear();
  // An entry whose directory was lost is lost with it. Parents sort before their children.
  names_.clear();
  for (auto const& [name, node] : durable_) {
    if (is_directory(parent_of(name))) names_[name] = node;
  }
  durable_ = names_;
  // In the order of their names: pointers would make a run depend on the allocator.
  for (auto const& [name, node] : names_) {
    if (node.file && files.erase(node.file) != 0) node.file->crash(random_);
  }
}

void Sim_disk::crash() {
  ++life_;
  settle_names();
}

void Sim_disk::flip(std::string const& name, std::uint64_t offset, unsigned char mask) {
  auto const found = names_.find(name);
  if (found == names_.end() || !found->second.file) return;
  for (Sim_image* image : {&found->second.file->seen, &found->second.file->durable}) {
    std::byte byte{};
    image->read(offset, {&byte, 1});
    byte ^= std::byte{mask};
    auto const size = image->size;
    image->write(offset, {&byte, 1});
    image->size = size;
  }
}

}  // namespace pstorage::sim

#include "tests/blockdev/ploop/sim_store.h"

#include <algorithm>
#include <cstring>

#include "blockdev/ploop/slices.h"

namespace pstorage::ploop::test {

bool Sim_loop::run_one() {
  if (!deferred_.empty()) {
    auto const work = std::move(deferred_.front());
    deferred_.erase(deferred_.begin());
    work();
    return true;
  }
  if (completions_.empty()) return false;
  auto const chosen =
      completions_.begin() + static_cast<std::ptrdiff_t>(random_.below(completions_.size()));
  auto const work = std::move(*chosen);
  completions_.erase(chosen);
  work();
  return true;
}

void Sim_file::apply(Change const& change, std::vector<std::byte>& to) {
  switch (change.kind) {
    case Change::Kind::extend:
    case Change::Kind::truncate:
      return to.resize(change.offset);
    case Change::Kind::write:
    case Change::Kind::zero: {
      if (change.offset >= to.size()) return;  // its extension was lost
      auto const length = std::min(change.length, to.size() - change.offset);
      if (change.kind == Change::Kind::zero)
        std::memset(to.data() + change.offset, 0, length);
      else
        std::memcpy(to.data() + change.offset, change.data.data(), length);
    }
  }
}

void Sim_file::apply_torn(Change const& change) {
  constexpr std::uint64_t sector = 512;
  for (std::uint64_t from = 0; from < change.length;) {
    auto const end =
        std::min(change.length, (change.offset + from) / sector * sector + sector - change.offset);
    if (random_.percent(50)) {
      Change part{change.kind, change.offset + from, end - from, {}, false, false};
      if (change.kind == Change::Kind::write)
        part.data.assign(change.data.begin() + static_cast<std::ptrdiff_t>(from),
                         change.data.begin() + static_cast<std::ptrdiff_t>(end));
      apply(part, durable_);
    }
    from = end;
  }
}

std::shared_ptr<Sim_file::Change> Sim_file::submit(Change change) {
  apply(change, now_);
  changes_.push_back(std::make_shared<Change>(std::move(change)));
  return changes_.back();
}

void Sim_file::compact() {
  auto const first =
      std::find_if(changes_.begin(), changes_.end(), [](auto const& c) { return !c->is_durable; });
  for (auto change = changes_.begin(); change != first; ++change) apply(**change, durable_);
  changes_.erase(changes_.begin(), first);
}

void Sim_file::settle(bool answered_stays) {
  // Some crashes lose nearly everything, some nearly nothing.
  auto const keeps = static_cast<unsigned>(random_.below(3) * 40 + 10);
  for (auto const& change : changes_) {
    bool const is_size =
        change->kind == Change::Kind::extend || change->kind == Change::Kind::truncate;
    if (change->is_durable || (answered_stays && change->is_answered) || random_.percent(keeps))
      apply(*change, durable_);
    else if (!is_size && random_.percent(40))
      apply_torn(*change);
  }
  changes_.clear();
  now_ = durable_;
}

void Sim_file::crash() { settle(false); }
void Sim_file::kill() { settle(true); }

class Sim_store final : public Image_store {
 public:
  Sim_store(Sim_file& file, Sim_loop& loop)
      : file_(file), loop_(loop), size_(file.bytes().size()) {}
  ~Sim_store() override { *alive_ = false; }

  std::uint64_t size_bytes() const override { return size_; }

  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override {
    PS_ASSERT(in_bounds(offset, length, file_.now_.size()));
    std::vector<Slice> slices;
    // In two pieces, as a store over chunks might.
    auto const half = length / 2;
    if (half > 0) slices.push_back(copy(offset, half));
    slices.push_back(copy(offset + half, length - half));
    complete([done = std::move(done), slices = std::move(slices)]() mutable {
      done(std::move(slices));
    });
  }

  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) override {
    auto const bytes = gathered(data);
    auto const change = file_.submit({Sim_file::Change::Kind::write,
                                      offset,
                                      bytes.size(),
                                      {bytes.data(), bytes.data() + bytes.size()}});
    answer(change, fua, std::move(done));
  }

  void punch(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
             Done done) override {
    constexpr std::uint64_t block = 4096;
    auto end = offset + length;
    if (only_whole_blocks) {
      offset = (offset + block - 1) / block * block;
      end = end / block * block;
    }
    length = end > offset ? end - offset : 0;
    answer(file_.submit({Sim_file::Change::Kind::zero, offset, length, {}}), fua, std::move(done));
  }

  void flush(Done done) override {
    std::vector<std::shared_ptr<Sim_file::Change>> covered;
    for (auto const& change : file_.changes_)
      if (change->is_answered) covered.push_back(change);
    complete([this, covered, done = std::move(done)] {
      if (file_.fails_flushes_) return done(Errc::lost_writes);
      for (auto const& change : covered) change->is_durable = true;
      file_.compact();
      done(success());
    });
  }

  void extend(std::uint64_t size_bytes, Done done) override {
    auto const change = file_.submit({Sim_file::Change::Kind::extend, size_bytes, 0, {}});
    complete([this, change, size_bytes, done = std::move(done)] {
      change->is_answered = change->is_durable = true;
      size_ = size_bytes;
      file_.compact();
      done(success());
    });
  }

  void truncate(std::uint64_t size_bytes, Done done) override {
    auto const change = file_.submit({Sim_file::Change::Kind::truncate, size_bytes, 0, {}});
    complete([this, change, size_bytes, done = std::move(done)] {
      change->is_answered = true;
      size_ = size_bytes;
      done(success());
    });
  }

  void close(Done done) override {
    complete([done = std::move(done)] { done(success()); });
  }

 private:
  Slice copy(std::uint64_t offset, std::uint64_t length) {
    return Slice::copy_of(Bytes(file_.now_).subspan(offset, length));
  }

  void complete(std::function<void()> work) {
    loop_.complete([alive = alive_, work = std::move(work)]() mutable {
      if (*alive) work();
    });
  }

  void answer(std::shared_ptr<Sim_file::Change> change, bool fua, Done done) {
    complete([this, change = std::move(change), fua, done = std::move(done)] {
      change->is_answered = true;
      change->is_durable = fua;
      if (fua) file_.compact();
      done(success());
    });
  }

  Sim_file& file_;
  Sim_loop& loop_;
  std::uint64_t size_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

std::unique_ptr<Image_store> Sim_file::open(Sim_loop& loop) {
  return std::make_unique<Sim_store>(*this, loop);
}

}  // namespace pstorage::ploop::test

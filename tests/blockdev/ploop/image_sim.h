// One seed: a guest on a ploop image whose disk loses power, again and again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/blocking_store.h"
#include "blockdev/ploop/ploop_image.h"
#include "tests/blockdev/ploop/content_model.h"
#include "tests/blockdev/ploop/sim_store.h"

namespace pstorage::ploop::test {

struct Sim_result {
  std::string fault;  // empty: everything held
  std::uint64_t hash = 0;
  std::uint64_t operations = 0;
  double virtual_seconds = 0;  // this simulation has no clock
  unsigned crashes = 0;
};

/// Judges an image file after a crash; empty: fine. The real `ploop check`, for example.
using Judge = std::function<std::string(Bytes file)>;

class Image_sim {
 public:
  explicit Image_sim(std::uint64_t seed, bool verbose = false, Judge judge = nullptr)
      : random_(seed), loop_(random_), is_verbose_(verbose), judge_(std::move(judge)) {}

  Sim_result run();

 private:
  void prepare();
  void make_top();
  void open(bool is_writable, bool may_recover);
  void live(unsigned operations);
  void submit();
  void submit_write(std::uint64_t first, std::uint64_t count);
  void submit_zero(std::uint64_t first, std::uint64_t count, bool is_discard);
  void submit_read(std::uint64_t first, std::uint64_t count);
  void submit_flush();
  void tell(char const* what, std::uint64_t first, std::uint64_t count, std::uint64_t number,
            bool fua) const;
  void take_snapshot();
  void start_merge();
  void drop_base();
  void close();
  void lose_power();
  void check_file(Sim_file& file, bool was_closed);
  void check_content(bool power);
  void fail(std::string const& fault) {
    if (result_.fault.empty()) result_.fault = fault;
  }
  bool has_failed() const { return !result_.fault.empty(); }
  void turn();
  Turn turns() {
    return [this] {
      turn();
      return true;
    };
  }

  Seeded random_;
  Sim_loop loop_;
  std::unique_ptr<Sim_file> base_ = std::make_unique<Sim_file>(random_);
  std::unique_ptr<Sim_file> top_ = std::make_unique<Sim_file>(random_);
  bool is_verbose_;
  Judge judge_;
  std::unique_ptr<Sim_file> next_;  // a new top that nothing leads to yet
  std::vector<std::unique_ptr<Sim_file>> dropped_;
  bool is_switching_ = false;
  enum class Merge { none, copies, copied } merge_ = Merge::none;
  bool is_prepared_ = false;
  bool is_chain_ = false;
  std::uint32_t extension_bytes_ = 0;
  Header header_;
  std::unique_ptr<Content_model> model_;
  std::unique_ptr<Ploop_image> image_;
  unsigned in_flight_ = 0;
  Sim_result result_;
};

}  // namespace pstorage::ploop::test

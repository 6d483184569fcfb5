// A store in memory that answers when the test says so.
#pragma once

#include <algorithm>
#include <cerrno>
#include <deque>
#include <vector>

#include "iscsi/store.h"

namespace pstorage::iscsi {

class Memory_disk_store final : public Store {
 public:
  explicit Memory_disk_store(std::size_t bytes) : data(bytes), written(bytes) {}

  void submit(Store_request& request) override { queue.push_back(&request); }

  /// Carries out and answers the oldest request.
  void answer_one(int error = 0) {
    auto& request = *queue.front();
    queue.pop_front();
    ++answered;
    if (error == 0) carry_out(request);
    request.store_done(error);
  }
  void answer_all() {
    while (!queue.empty()) answer_one();
  }

  std::vector<std::uint8_t> data;
  std::vector<bool> written;
  std::deque<Store_request*> queue;
  std::size_t answered = 0;

 private:
  void carry_out(Store_request& request) {
    auto const at = static_cast<std::ptrdiff_t>(request.offset);
    auto const length = static_cast<std::ptrdiff_t>(request.length);
    switch (request.operation) {
      case Store_operation::read:
        std::copy_n(data.begin() + at, length, request.data);
        break;
      case Store_operation::write:
        std::copy_n(request.data, length, data.begin() + at);
        std::fill_n(written.begin() + at, length, true);
        break;
      case Store_operation::zero:
        std::fill_n(data.begin() + at, length, std::uint8_t{0});
        std::fill_n(written.begin() + at, length, false);
        break;
      case Store_operation::flush:
        break;
      case Store_operation::status:
        request.extents.clear();
        for (std::uint64_t i = request.offset; i < request.offset + request.length; ++i) {
          bool const hole = !written[i];
          if (request.extents.empty() || request.extents.back().is_hole != hole) {
            request.extents.push_back({0, hole});
          }
          ++request.extents.back().length;
        }
        break;
    }
  }
};

}  // namespace pstorage::iscsi

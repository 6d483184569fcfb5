// Single SCSI commands and small races, for tests and by hand.
//   iscsi_do URL INITIATOR register KEY NEW_KEY | reserve KEY TYPE | release KEY TYPE
//                        | preempt KEY VICTIM TYPE | clear KEY | keys | holder
//                        | write LBA BYTE | read LBA | capacity | watch-capacity | identity
//                        | ready | watch-ready | groups | path
//   iscsi_do URL - race ROUNDS       two initiators count up one block with COMPARE AND WRITE
// Prints what the target answered; unit attentions are printed and the command sent again.
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/iscsi/initiator.h"

namespace pstorage::iscsi {
namespace {

constexpr int sector = 512;
using Task = std::unique_ptr<scsi_task, void (*)(scsi_task*)>;

/// Sends until it is neither a unit attention nor BUSY nor NOT READY.
Task insist(std::function<scsi_task*()> const& send) {
  while (true) {
    Task task(send(), &scsi_free_scsi_task);
    if (!task) give_up("no answer");
    if (!is_worth_repeating(*task)) return task;
    if (is_unit_attention(*task)) std::printf("UNIT ATTENTION %04x\n", task->sense.ascq);
  }
}

class Tool {
 public:
  Tool(std::string const& url, std::string const& name) : session_(name, url, false) {}

  int reserve_out(int action, int type, std::uint64_t key, std::uint64_t action_key) {
    scsi_persistent_reserve_out_basic list{};
    list.reservation_key = key;
    list.service_action_reservation_key = action_key;
    list.aptpl = action == SCSI_PERSISTENT_RESERVE_REGISTER ? 1 : 0;
    return say(insist([&] {
      return iscsi_persistent_reserve_out_sync(session_.context(), session_.lun(), action, 0, type,
                                               &list);
    }));
  }

  int report_reservations(int action) {
    auto const task = insist([&] {
      return iscsi_persistent_reserve_in_sync(session_.context(), session_.lun(), action, 1024);
    });
    if (task->status != SCSI_STATUS_GOOD) return say(task);
    auto* const page = scsi_datain_unmarshall(task.get());
    if (page == nullptr) give_up("the answer cannot be read");
    if (action == SCSI_PERSISTENT_RESERVE_READ_KEYS) {
      auto const& keys = *static_cast<scsi_persistent_reserve_in_read_keys*>(page);
      for (int i = 0; i < keys.num_keys; ++i) {
        std::printf("%llu\n", static_cast<unsigned long long>(keys.keys[i]));
      }
    } else {
      auto const& one = *static_cast<scsi_persistent_reserve_in_read_reservation*>(page);
      std::printf(one.reserved != 0 ? "%llu type %d\n" : "none\n",
                  static_cast<unsigned long long>(one.reservation_key), one.pr_type);
    }
    return 0;
  }

  int write(std::uint64_t lba, int byte) {
    std::array<unsigned char, sector> data{};
    data.fill(static_cast<unsigned char>(byte));
    return say(insist([&] {
      return iscsi_write16_sync(session_.context(), session_.lun(), lba, data.data(), sector,
                                sector, 0, 0, 0, 0, 0);
    }));
  }

  int read(std::uint64_t lba) {
    auto const task = insist([&] {
      return iscsi_read16_sync(session_.context(), session_.lun(), lba, sector, sector, 0, 0, 0, 0,
                               0);
    });
    if (task->status != SCSI_STATUS_GOOD) return say(task);
    std::printf("%d\n", task->datain.data[0]);
    return 0;
  }

  std::uint64_t capacity() {
    auto const task =
        insist([&] { return iscsi_readcapacity16_sync(session_.context(), session_.lun()); });
    auto* const page = static_cast<scsi_readcapacity16*>(scsi_datain_unmarshall(task.get()));
    if (page == nullptr) give_up("the capacity cannot be read");
    return (page->returned_lba + 1) * page->block_length;
  }

  /// Prints the size, then the new one as soon as the target reports a change.
  int watch_capacity() {
    auto const before = capacity();
    std::printf("%llu\n", static_cast<unsigned long long>(before));
    std::fflush(stdout);
    for (int i = 0; i < 200; ++i) {
      insist([&] { return iscsi_testunitready_sync(session_.context(), session_.lun()); });
      auto const now = capacity();
      if (now != before) {
        std::printf("%llu\n", static_cast<unsigned long long>(now));
        return 0;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return 1;
  }

  /// What TEST UNIT READY answers, sent once (after unit attentions).
  int ready() {
    while (true) {
      Task const task(iscsi_testunitready_sync(session_.context(), session_.lun()),
                      &scsi_free_scsi_task);
      if (!task) give_up("no answer");
      if (!is_unit_attention(*task)) return say(task);
      std::printf("UNIT ATTENTION %04x\n", task->sense.ascq);
    }
  }

  /// Prints every answer that differs from the one before, until the unit is ready.
  int watch_ready() {
    std::string before;
    for (int i = 0; i < 800; ++i) {
      Task const task(iscsi_testunitready_sync(session_.context(), session_.lun()),
                      &scsi_free_scsi_task);
      if (!task) give_up("no answer");
      auto const now = describe(*task);
      if (now != before) std::printf("%s\n", now.c_str());
      std::fflush(stdout);
      if (task->status == SCSI_STATUS_GOOD) return 0;
      before = now;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return 1;
  }

  /// REPORT TARGET PORT GROUPS: "GROUP STATE" a line, with the number of the state.
  int groups() {
    constexpr int length = 256;
    auto const task = insist([&] {
      std::array<unsigned char, 12> cdb{0xa3, 0x0a};
      cdb[8] = length >> 8;
      auto* const asked = scsi_create_task(cdb.size(), cdb.data(), SCSI_XFER_READ, length);
      return iscsi_scsi_command_sync(session_.context(), session_.lun(), asked, nullptr);
    });
    if (task->status != SCSI_STATUS_GOOD) return say(task);
    auto const* const data = task->datain.data;
    for (int at = 4; at + 12 <= task->datain.size; at += 8 + 4 * data[at + 7]) {
      std::printf("%d %d\n", data[at + 2] << 8 | data[at + 3], data[at] & 0x0f);
    }
    return 0;
  }

  /// TPGS of INQUIRY, and relative port and port group of page 83.
  int path() {
    auto const inquiry =
        insist([&] { return iscsi_inquiry_sync(session_.context(), session_.lun(), 0, 0, 255); });
    std::printf("TPGS %d\n", inquiry->datain.data[5] >> 4 & 3);
    auto const task = insist(
        [&] { return iscsi_inquiry_sync(session_.context(), session_.lun(), 1, 0x83, 255); });
    auto const* const data = task->datain.data;
    for (int at = 4; at + 8 <= task->datain.size; at += 4 + data[at + 3]) {
      int const type = data[at + 1] & 0x0f;
      if (type == 4) std::printf("port %d\n", data[at + 6] << 8 | data[at + 7]);
      if (type == 5) std::printf("group %d\n", data[at + 6] << 8 | data[at + 7]);
    }
    return 0;
  }

  int identity() {
    auto const task = insist(
        [&] { return iscsi_inquiry_sync(session_.context(), session_.lun(), 1, 0x80, 255); });
    auto* const page =
        static_cast<scsi_inquiry_unit_serial_number*>(scsi_datain_unmarshall(task.get()));
    if (page == nullptr) give_up("the serial number cannot be read");
    std::printf("%s\n", page->usn);
    return 0;
  }

  /// Adds one to the number in block 0, `rounds` times, against others that do the same.
  std::uint64_t count_up(int rounds) {
    std::uint64_t lost = 0;
    for (int done = 0; done < rounds;) {
      auto const old = insist([&] {
        return iscsi_read16_sync(session_.context(), session_.lun(), 0, sector, sector, 0, 0, 0, 0,
                                 0);
      });
      if (old->status != SCSI_STATUS_GOOD) give_up("read: " + describe(*old));
      std::array<unsigned char, 2 * sector> both{};
      std::memcpy(both.data(), old->datain.data, sector);
      std::memcpy(both.data() + sector, old->datain.data, sector);
      std::uint64_t number = 0;
      std::memcpy(&number, old->datain.data, sizeof(number));
      ++number;
      std::memcpy(both.data() + sector, &number, sizeof(number));
      auto const swapped = insist([&] {
        return iscsi_compareandwrite_sync(session_.context(), session_.lun(), 0, both.data(),
                                          both.size(), sector, 0, 0, 0, 0, 0);
      });
      bool const won = swapped->status == SCSI_STATUS_GOOD;
      if (!won && swapped->sense.key != SCSI_SENSE_MISCOMPARE) {
        give_up("compare and write: " + describe(*swapped));
      }
      done += won ? 1 : 0;
      lost += won ? 0 : 1;
    }
    return lost;
  }

  std::uint64_t number() {
    auto const task = insist([&] {
      return iscsi_read16_sync(session_.context(), session_.lun(), 0, sector, sector, 0, 0, 0, 0,
                               0);
    });
    std::uint64_t value = 0;
    std::memcpy(&value, task->datain.data, sizeof(value));
    return value;
  }

 private:
  static int say(Task const& task) {
    std::printf("%s\n", describe(*task).c_str());
    return 0;
  }

  Initiator session_;
};

int race(std::string const& url, int rounds) {
  std::uint64_t const before = Tool(url, "iqn.2026-11.test:a").number();
  std::array<std::uint64_t, 2> lost{};
  std::thread first([&] { lost[0] = Tool(url, "iqn.2026-11.test:a").count_up(rounds); });
  std::thread second([&] { lost[1] = Tool(url, "iqn.2026-11.test:b").count_up(rounds); });
  first.join();
  second.join();
  auto const added = Tool(url, "iqn.2026-11.test:a").number() - before;
  std::printf("{\"wanted\": %d, \"added\": %llu, \"lost_races\": %llu}\n", 2 * rounds,
              static_cast<unsigned long long>(added),
              static_cast<unsigned long long>(lost[0] + lost[1]));
  return added == 2 * static_cast<std::uint64_t>(rounds) ? 0 : 1;
}

int run(std::string const& url, std::string const& name, std::vector<std::string> const& words) {
  auto const& verb = words[0];
  auto const number = [&](std::size_t i) -> std::uint64_t {
    if (i >= words.size()) give_up(verb + " needs more arguments");
    return std::stoull(words[i]);
  };
  auto const type = [&](std::size_t i) { return static_cast<int>(number(i)); };
  if (verb == "race") return race(url, type(1));
  Tool tool(url, name);
  if (verb == "register") {
    return tool.reserve_out(SCSI_PERSISTENT_RESERVE_REGISTER, 0, number(1), number(2));
  }
  if (verb == "reserve") {
    return tool.reserve_out(SCSI_PERSISTENT_RESERVE_RESERVE, type(2), number(1), 0);
  }
  if (verb == "release") {
    return tool.reserve_out(SCSI_PERSISTENT_RESERVE_RELEASE, type(2), number(1), 0);
  }
  if (verb == "clear") {
    return tool.reserve_out(SCSI_PERSISTENT_RESERVE_CLEAR, 0, number(1), 0);
  }
  if (verb == "preempt") {
    return tool.reserve_out(SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, type(3), number(1),
                            number(2));
  }
  if (verb == "keys") return tool.report_reservations(SCSI_PERSISTENT_RESERVE_READ_KEYS);
  if (verb == "holder") return tool.report_reservations(SCSI_PERSISTENT_RESERVE_READ_RESERVATION);
  if (verb == "write") return tool.write(number(1), type(2));
  if (verb == "read") return tool.read(number(1));
  if (verb == "watch-capacity") return tool.watch_capacity();
  if (verb == "ready") return tool.ready();
  if (verb == "watch-ready") return tool.watch_ready();
  if (verb == "groups") return tool.groups();
  if (verb == "path") return tool.path();
  if (verb == "identity") return tool.identity();
  if (verb == "capacity") {
    std::printf("%llu\n", static_cast<unsigned long long>(tool.capacity()));
    return 0;
  }
  give_up("unknown command " + verb);
}

}  // namespace
}  // namespace pstorage::iscsi

int main(int argc, char** argv) {
  if (argc < 4) pstorage::iscsi::give_up("usage: iscsi_do URL INITIATOR COMMAND...");
  return pstorage::iscsi::run(argv[1], argv[2], {argv + 3, argv + argc});
}

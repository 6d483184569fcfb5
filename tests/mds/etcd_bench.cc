// The same load on etcd, for scripts/bench mds: puts over gRPC, as many in flight as asked for.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "etcd.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Call {
  grpc::ClientContext context;
  grpc::Status status;
  etcdserverpb::PutResponse reply;
  std::unique_ptr<grpc::ClientAsyncResponseReader<etcdserverpb::PutResponse>> reader;
  Clock::time_point sent;
};

}  // namespace

int main(int argc, char** argv) {
  std::string server = "127.0.0.1:2379";
  unsigned in_flight = 1;
  unsigned seconds = 5;
  std::size_t value_bytes = 200;
  CLI::App app("Puts to an etcd server.", "etcd_bench");
  app.add_option("--server", server, "Its leader, ADDR:PORT");
  app.add_option("--in-flight", in_flight, "Requests at a time");
  app.add_option("--seconds", seconds, "How long");
  app.add_option("--value-bytes", value_bytes, "Bytes of the value");
  CLI11_PARSE(app, argc, argv);
  auto const stub =
      etcdserverpb::KV::NewStub(grpc::CreateChannel(server, grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  etcdserverpb::PutRequest request;
  request.set_key("bench");
  request.set_value(std::string(value_bytes, 'v'));
  std::vector<double> times;
  auto const begin = Clock::now();
  auto const end = begin + std::chrono::seconds(seconds);
  unsigned under_way = 0;
  while (true) {
    while (Clock::now() < end && under_way < in_flight) {
      auto* const call = new Call;  // deleted when it ends
      call->sent = Clock::now();
      call->reader = stub->AsyncPut(&call->context, request, &queue);
      call->reader->Finish(&call->reply, &call->status, call);
      ++under_way;
    }
    if (under_way == 0) break;
    void* tag = nullptr;
    bool is_ok = false;
    queue.Next(&tag, &is_ok);
    std::unique_ptr<Call> const call(static_cast<Call*>(tag));
    --under_way;
    if (!call->status.ok()) {
      std::cerr << "etcd_bench: " << call->status.error_message() << "\n";
      return 1;
    }
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - call->sent).count());
  }
  auto const elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(times.begin(), times.end());
  auto const at = [&times](double share) {
    return times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))];
  };
  nlohmann::json const result = {{"load", "etcd put"},
                                 {"in_flight", in_flight},
                                 {"requests", times.size()},
                                 {"seconds", elapsed},
                                 {"per_second", static_cast<double>(times.size()) / elapsed},
                                 {"p50_us", at(0.5)},
                                 {"p99_us", at(0.99)}};
  std::cout << result.dump() << std::endl;
  return 0;
}

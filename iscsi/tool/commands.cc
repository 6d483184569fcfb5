#include "iscsi/tool/commands.h"

#include <algorithm>
#include <cstdio>

#include "core/cli/output.h"
#include "core/config/etc.h"

namespace pstorage::iscsi {
Commands::Commands(Command_options const& options)
    : options_(options),
      state_([this](proto::Mds_request request) { return caller_->call(std::move(request)); }) {}

Outcome<void> Commands::prepare() {
  PS_TRY(cluster_, cluster_name(options_.cluster));
  PS_TRY(auto const host, host_id(true));
  host_ = cli::hex_text(host.value);
  paths_ = gateway_paths(cluster_, options_.nbd_socket, options_.modules);
  PS_TRY(caller_, cli::Mds_caller::connect(cluster_, options_.bootstrap));
  return success();
}

Outcome<Target> Commands::load() {
  PS_TRY(auto const name, target_name(options_.target));
  PS_CHECK(prepare());
  return state_.load(name);
}

Gateway Commands::gateway(Target const& target) const { return {paths_, host_, target}; }

bool Commands::runs_here(Target const& target) const { return gateway(target).pid() != 0; }

Outcome<void> Commands::check_is_here(Target const& target) const {
  if (target.host == host_) return success();
  std::string const where =
      target.host.empty() ? "on no host" : "on host " + target.host + ", this is host " + host_;
  return failure(Errc::refused, "target " + target.iqn() + " is registered " + where +
                                    ": run 'pstorage-iscsi register -t " + target.name + "' here" +
                                    (target.host.empty() ? "" : " after unregistering"));
}

Outcome<void> Commands::check_is_stopped(Target const& target) const {
  if (!target.should_run && !runs_here(target)) return success();
  return failure(Errc::busy, "target " + target.iqn() +
                                 " is running: run 'pstorage-iscsi stop -t " + target.name +
                                 "' on its host first");
}

// ---------------------------------------------------------------- targets

Outcome<void> Commands::create() {
  Target target;
  PS_TRY(target.name, target_name(options_.name));
  PS_TRY(target.address, parse_portal(options_.address));
  PS_CHECK(set_moving(target));
  PS_CHECK(prepare());
  PS_CHECK(state_.create(target));
  PS_CHECK(state_.register_on(target.name, host_));
  if (options_.json) {
    cli::print_json({{"iqn", target.iqn()}, {"portal", target.address.text()}});
  } else {
    std::printf("IQN: %s\n", target.iqn().c_str());
  }
  return success();
}

Outcome<void> Commands::remove() {
  PS_TRY(auto const target, load());
  PS_CHECK(check_is_stopped(target));
  if (!target.luns.empty()) {
    return failure(Errc::not_empty, "target " + target.iqn() + " has " +
                                        std::to_string(target.luns.size()) +
                                        " LUNs: run 'pstorage-iscsi lun-del' for each first");
  }
  return state_.remove(target.name);
}

Outcome<void> Commands::set() {
  PS_TRY(auto target, load());
  if (options_.address.empty() && options_.failover.empty() && options_.device.empty()) {
    return failure(Errc::bad_request, "say what to set: -a, --failover or --device");
  }
  if (!options_.address.empty() || !options_.device.empty()) {
    PS_CHECK(check_is_stopped(target));
    if (!target.portals.empty()) {
      return failure(Errc::refused,
                     "the hosts of this target have portals of their own: change those with "
                     "'pstorage-iscsi portal add' and 'portal del'");
    }
  }
  if (!options_.address.empty()) {
    PS_TRY(target.address, parse_portal(options_.address));
  }
  PS_CHECK(set_moving(target));
  return state_.save(target);
}

Outcome<void> Commands::set_moving(Target& target) const {
  if (!options_.failover.empty()) target.may_move = options_.failover == "on";
  if (options_.device == "none") {
    target.device.clear();
  } else if (!options_.device.empty()) {
    PS_CHECK(check_device(options_.device));
    target.device = options_.device;
  }
  return success();
}

Outcome<void> Commands::register_here() {
  PS_TRY(auto const target, load());
  return state_.register_on(target.name, host_);
}

Outcome<void> Commands::unregister() {
  PS_TRY(auto const target, load());
  if (!target.host.empty()) PS_CHECK(check_is_here(target));
  PS_CHECK(check_is_stopped(target));
  return state_.unregister(target.name);
}

Outcome<void> Commands::portal_add() {
  PS_TRY(auto const where, parse_portal(options_.address));
  PS_TRY(auto target, load());
  PS_CHECK(check_is_stopped(target));
  PS_CHECK(add_portal(target, host_, where));
  return state_.save(target);
}

Outcome<void> Commands::portal_del() {
  PS_TRY(auto target, load());
  PS_CHECK(check_is_stopped(target));
  PS_CHECK(remove_portal(target, options_.host.empty() ? host_ : options_.host));
  return state_.save(target);
}

Outcome<void> Commands::start() {
  PS_TRY(auto target, load());
  if (options_.standby) return stand_by(target);
  PS_CHECK(check_is_here(target));
  PS_TRY(auto const what, state_.replayed(target));
  for (auto const& [number, lun] : target.luns) PS_CHECK(state_.ensure_reservations(lun.uuid));
  PS_CHECK(gateway(target).start(what));
  target.should_run = true;
  return state_.save(target);
}

Outcome<void> Commands::stand_by(Target const& target) {
  if (target.host == host_ || target.portals.empty()) {
    return failure(Errc::refused, target.portals.empty()
                                      ? "the target has one address only: run 'pstorage-iscsi "
                                        "portal add' first"
                                      : "the target is registered on this host, which serves it");
  }
  PS_TRY(auto const what, state_.replayed(target));
  return gateway(target).stand_by(what);
}

Outcome<void> Commands::stop() {
  PS_TRY(auto target, load());
  PS_CHECK(check_is_here(target));
  PS_CHECK(gateway(target).stop());
  target.should_run = false;
  return state_.save(target);
}

// ---------------------------------------------------------------- who may log in

Outcome<void> Commands::account_add() {
  PS_CHECK(check_user(options_.user));
  PS_TRY(auto const secret, read_secret(options_.secret_file, "Secret of " + options_.user + ": "));
  PS_CHECK(check_secret(secret));
  PS_CHECK(prepare());
  return state_.save_account(options_.user, secret);
}

Outcome<void> Commands::account_del() {
  PS_CHECK(check_user(options_.user));
  PS_CHECK(prepare());
  PS_TRY(auto const accounts, state_.accounts());
  if (!accounts.contains(options_.user)) {
    return failure(Errc::not_found, "there is no account '" + options_.user + "'");
  }
  PS_TRY(auto const names, state_.target_names());
  for (auto const& name : names) {
    PS_TRY(auto const target, state_.load(name));
    bool const is_used = target.outgoing == options_.user ||
                         std::find(target.incoming.begin(), target.incoming.end(), options_.user) !=
                             target.incoming.end();
    if (is_used) {
      return failure(Errc::busy, "target " + target.iqn() +
                                     " uses the account: run "
                                     "'pstorage-iscsi account unbind' first");
    }
  }
  return state_.save_account(options_.user, "");
}

Outcome<void> Commands::account_list() {
  PS_CHECK(prepare());
  PS_TRY(auto const accounts, state_.accounts());
  auto names = nlohmann::json::array();
  for (auto const& [user, secret] : accounts) names.push_back(user);
  if (options_.json) {
    cli::print_json(names);
  } else {
    for (auto const& user : names) std::printf("%s\n", user.get<std::string>().c_str());
  }
  return success();
}

Outcome<void> Commands::account_bind(bool binds) {
  PS_CHECK(check_user(options_.user));
  PS_TRY(auto target, load());
  PS_TRY(auto const accounts, state_.accounts());
  auto const account = accounts.find(options_.user);
  if (binds && account == accounts.end()) {
    return failure(Errc::not_found, "there is no account '" + options_.user +
                                        "': make it with 'pstorage-iscsi account add'");
  }
  auto& users = target.incoming;
  if (options_.mutual) {
    if (binds && !target.outgoing.empty()) {
      return failure(Errc::exists, "the target proves the account '" + target.outgoing +
                                       "' already: unbind that one first");
    }
    if (!binds && target.outgoing != options_.user) {
      return failure(Errc::not_found, "the account is not bound");
    }
    target.outgoing = binds ? options_.user : "";
  } else {
    auto const bound = std::find(users.begin(), users.end(), options_.user);
    if (binds == (bound != users.end())) {
      return failure(binds ? Errc::exists : Errc::not_found,
                     binds ? "the account is bound already" : "the account is not bound");
    }
    if (binds) {
      users.push_back(options_.user);
    } else {
      users.erase(bound);
    }
  }
  if (target.should_run) PS_CHECK(check_is_here(target));
  PS_CHECK(state_.save(target));
  if (!runs_here(target)) return success();
  auto const one = gateway(target);
  if (binds) PS_CHECK(one.control().add_account(options_.user, account->second));
  return one.control().bind_account(options_.user, options_.mutual, binds);
}

Outcome<void> Commands::acl_change(bool allows) {
  PS_CHECK(check_allowed(options_.initiator));
  PS_TRY(auto target, load());
  auto& allowed = target.allowed;
  bool const was_open = allowed.empty();
  auto const entry = std::find(allowed.begin(), allowed.end(), options_.initiator);
  if (allows == (entry != allowed.end())) {
    return failure(allows ? Errc::exists : Errc::not_found,
                   "'" + options_.initiator + "' is " + (allows ? "already" : "not") + " allowed");
  }
  if (!allows && allowed.size() == 1) {
    return failure(Errc::refused,
                   "without this entry every initiator would be let in: add another "
                   "one first, or stop the target");
  }
  if (allows) {
    allowed.push_back(options_.initiator);
  } else {
    allowed.erase(entry);
  }
  if (target.should_run) PS_CHECK(check_is_here(target));
  PS_CHECK(state_.save(target));
  if (!runs_here(target)) return success();
  auto const one = gateway(target);
  PS_CHECK(one.control().allow(options_.initiator, allows));
  return was_open ? one.control().allow("ALL", false) : success();
}

}  // namespace pstorage::iscsi

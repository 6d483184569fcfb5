// The commands of core/proto/mds.proto, one function each. They run inside a savepoint: after a
// Failure nothing they wrote remains. Deterministic: everything they know is in the Context.
#pragma once

#include "mds.pb.h"
#include "mds/state/context.h"
#include "mds/state/inodes.h"

namespace pstorage::mds {

inline constexpr std::size_t sessions_max = 100'000;
inline constexpr int allocate_indexes_max = 4096;

// session_commands.cc
Applied apply_open_session(Context& context, proto::Open_session const& command);
Applied apply_close_session(Context& context);
Applied apply_expire_sessions(Context& context, proto::Expire_sessions const& command);

// name_commands.cc
Applied apply_create(Context& context, proto::Create const& command, proto::Mds_reply& reply);
Applied apply_remove(Context& context, proto::Path_request const& command, proto::Mds_reply& reply);
Applied apply_rename(Context& context, proto::Rename const& command, proto::Mds_reply& reply);
Applied apply_link(Context& context, proto::Rename const& command, proto::Mds_reply& reply);
Applied apply_set_attributes(Context& context, proto::Set_attributes const& command,
                             proto::Mds_reply& reply);
Applied apply_set_inode(Context& context, proto::Set_inode const& command, proto::Mds_reply& reply);
Applied apply_resize(Context& context, proto::Resize const& command, proto::Mds_reply& reply);

// lease_commands.cc
/// The exclusive lease of a file that was just made: nobody else knows it.
void grant_new_file(Context& context, Inode& inode, proto::Lease& granted);
Applied apply_open_file(Context& context, proto::Open_file const& command, proto::Mds_reply& reply);
Applied apply_finish_seal(Context& context, proto::Finish_seal const& command,
                          proto::Mds_reply& reply);
Applied apply_close_file(Context& context, proto::Close_file const& command);
Applied apply_revoke(Context& context, proto::Revoke const& command);

// chunk_commands.cc
Applied apply_allocate(Context& context, proto::Allocate const& command, proto::Mds_reply& reply);
Applied apply_report_failed(Context& context, proto::Report_failed const& command,
                            proto::Mds_reply& reply);
Applied apply_free_chunks(Context& context, proto::Free_chunks const& command);
Applied apply_start_sync(Context& context, proto::Start_sync const& command);
Applied apply_drop_offline(Context& context, proto::Start_sync const& command);
Applied apply_sync_done(Context& context, proto::Sync_done const& command);
Applied apply_deleted_chunks(Context& context, proto::Deleted_chunks const& command);

// mds_commands.cc
Applied apply_create_mds(Context& context, proto::Create_mds const& command,
                         proto::Mds_reply& reply);
Applied apply_remove_mds(Context& context, proto::Remove_mds const& command);

// server_commands.cc
Applied apply_create_cs(Context& context, proto::Create_cs const& command, proto::Mds_reply& reply);
Applied apply_register_cs(Context& context, proto::Register_cs const& command,
                          proto::Mds_reply& reply);
Applied apply_set_cs_state(Context& context, proto::Set_cs_state const& command);
Applied apply_set_config(Context& context, proto::Set_config const& command);
Applied apply_add_event(Context& context, proto::Add_event const& command);
Applied apply_bootstrap(Context& context, proto::Bootstrap const& command);

// release_commands.cc
Applied apply_release_cs(Context& context, proto::Release_cs const& command);
Applied apply_remove_replicas(Context& context, proto::Remove_replicas const& command);
Applied apply_drop_cs(Context& context, proto::Drop_cs const& command);
Applied apply_add_garbage(Context& context, proto::Add_garbage const& command);

}  // namespace pstorage::mds

// pstorage(1): administers a cluster.
#include "core/cli/commands.h"

int main(int argc, char** argv) {
  using namespace pstorage::cli;
  Cli cli;
  add_mds_commands(cli);
  add_cs_commands(cli);
  add_node_commands(cli);
  add_attribute_commands(cli);
  add_volume_commands(cli);
  add_lease_commands(cli);
  add_status_commands(cli);
  add_top_commands(cli);
  add_event_commands(cli);
  add_config_commands(cli);
  add_healing_commands(cli);
  add_check_commands(cli);
  add_support_commands(cli);
  add_advise_commands(cli);
  add_completion_commands(cli);
  return cli.run(argc, argv);
}

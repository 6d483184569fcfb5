// pstorage-ploop: works on ploop images.
#include <sys/stat.h>

#include "blockdev/ploop/ploop_cli.h"

int main(int argc, char** argv) {
  ::umask(077);  // images hold other people's data
  pstorage::ploop::Ploop_cli cli;
  pstorage::ploop::add_image_commands(cli);
  pstorage::ploop::add_check_commands(cli);
  pstorage::ploop::add_snapshot_commands(cli);
  return cli.run(argc, argv);
}

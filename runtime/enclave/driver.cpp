#include "enclave/driver.h"

#include "enclave/drivers/kitten/driver.h"
#include "enclave/drivers/linux/container.h"
#include "enclave/drivers/palacios/driver.h"

namespace hobbes {

const Driver& driver_for(Kind kind) {
  static const LinuxDriver linux_driver;
  static const KittenDriver kitten;
  static const PalaciosDriver palacios;
  switch (kind) {
    case Kind::kitten:
      return kitten;
    case Kind::palacios:
      return palacios;
    case Kind::linux_:
      break;
  }
  return linux_driver;
}

void add_groups(ExecRequest& request) {
  auto& groups = request.process.user.additional_gids;
  groups.insert(groups.end(), request.additional_gids.begin(), request.additional_gids.end());
  request.additional_gids.clear();
}

}  // namespace hobbes

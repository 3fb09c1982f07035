#include "shell/devices.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "ipc/client.h"

namespace hobbes {

Result<void> show_devices(const Style& style) {
  HOBBES_TRY(client, Client::connect());
  HOBBES_TRY(answer, client.call("devices", {}));
  if (style.json) {
    std::cout << to_text(answer.body, 2) << "\n" << std::flush;
    return {};
  }
  std::size_t width = 6;
  for (const Json& device : answer.body["devices"])
    width = std::max(width, text_at(device, "name").size());
  const auto columns = static_cast<int>(width);
  std::printf("%-*s  %-16s  %s\n", columns, "DEVICE", "ENCLAVE", "NODES");
  for (const Json& device : answer.body["devices"]) {
    std::string nodes;
    for (const Json& node : device["nodes"])
      nodes += (nodes.empty() ? "" : " ") + node.get<std::string>();
    std::printf("%-*s  %-16s  %s\n", columns, text_at(device, "name").c_str(),
                text_at(device, "enclave", "free").c_str(), nodes.empty() ? "-" : nodes.c_str());
  }
  std::fflush(stdout);
  for (const Json& problem : answer.body["problems"])
    std::cerr << "hobbes: " << problem.get<std::string>() << "\n";
  return {};
}

}  // namespace hobbes

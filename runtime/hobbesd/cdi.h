// Devices of other vendors, as files of the Container Device Interface describe them.
// Source: https://github.com/cncf-tags/container-device-interface (SPEC.md, versions 0.3 to 1.0).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

struct CdiDevice {
  std::string name;  ///< "vendor.com/class=name"
  std::string file;
  Json edits = Json::array();      ///< containerEdits: the file's, then the device's
  std::vector<std::string> nodes;  ///< device nodes of its own, by their path on the host
};

/// All devices of this node, as their descriptions were when it was read. A value.
class CdiRegistry {
 public:
  /// Reads every .json and .yaml file of the folders. A later folder's description of a device
  /// replaces an earlier folder's. A file that cannot be read or is wrong is left out and becomes a
  /// problem. A device that two files of one folder describe is left out and becomes a problem,
  /// too.
  static CdiRegistry read(const std::vector<std::string>& folders = {"/etc/cdi", "/var/run/cdi"},
                          const Files& files = Files::system());

  [[nodiscard]] const std::map<std::string, CdiDevice>& devices() const { return devices_; }
  [[nodiscard]] const std::vector<std::string>& problems() const { return problems_; }
  /// Null: this node has no such device.
  [[nodiscard]] const CdiDevice* find(const std::string& name) const;

 private:
  Result<void> add(const std::string& path, const Json& document,
                   std::map<std::string, CdiDevice>& folder);
  std::map<std::string, CdiDevice> devices_;
  std::vector<std::string> problems_;
};

/// One file's text as JSON. Errors: Code::invalid.
Result<Json> parse_cdi(const std::string& path, const std::string& text);

}  // namespace hobbes

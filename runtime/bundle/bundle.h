// A bundle: the folder an enclave is made from. Format document: bundles/spec.md; schema:
// bundles/schema.json.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bundle/oci.h"
#include "bundle/overrides.h"
#include "core/cpu_set.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

enum class Kind : std::uint8_t { linux_ = 1, kitten = 2, palacios = 3 };
const char* name_of(Kind kind);
std::optional<Kind> kind_named(std::string_view name);

/// How cores are picked among the free ones; see partition/placement.h.
enum class Policy : std::uint8_t { compact, spread, local };
const char* name_of(Policy policy);

struct CoreRequest {
  unsigned count = 0;            ///< physical cores (all their hardware threads), 0: none requested
  std::optional<CpuSet> list;    ///< exactly these logical CPUs instead of a count
  std::optional<unsigned> numa;  ///< only from this NUMA node
  Policy policy = Policy::compact;
  bool shared = false;  ///< may be given to other enclaves that say the same
  [[nodiscard]] bool wanted() const { return count > 0 || list.has_value(); }
};

struct MemoryRequest {
  std::uint64_t size = 0;  ///< bytes, 0: none requested
  std::optional<unsigned> numa;
  std::uint64_t page_size = 4096;
  std::uint64_t segments =
      64 << 20;           ///< what programs of a virtual machine may make, beyond `size`
  bool detached = false;  ///< to be taken from Linux altogether
};

struct ImageRequest {
  std::string kernel, initrd, cmdline, protocol;
  bool agent =
      false;  ///< the guest has one, although there is no process: it waits for programs of `exec`
  bool terminal = false;  ///< the serial port of a guest without an agent is the enclave's terminal
  unsigned boot_seconds = 120;  ///< how long a guest may take until its agent answers
};

struct SegmentRequest {
  std::string name;  ///< of somebody else's: may be a pattern, in which * stands for any characters
  std::uint64_t size = 0;    ///< 0: made by somebody else, this enclave is to attach it
  bool writable = true;      ///< for enclaves that did not make it
  bool composition = false;  ///< only those made in enclaves of this one's composition
};

struct RemoraRequest {
  std::string composition, app;
  unsigned timeout_seconds = 60;
};

/// Who may manage what from inside the enclave.
enum class Manage : std::uint8_t { none, self, node };
const char* name_of(Manage manage);

/// The `hobbes` object of config.json, merged with the `org.hobbes.*` annotations.
struct HobbesSection {
  bool present = false;  ///< the bundle says something to Hobbes, by object or annotation
  Kind kind = Kind::linux_;
  bool host_root = false;  ///< "root": "host": the host's own tree, read-only
  CoreRequest cores;
  MemoryRequest memory;
  ImageRequest image;
  std::vector<SegmentRequest> segments;
  std::optional<RemoraRequest> remora;
  Manage manage = Manage::none;
  unsigned heartbeat_seconds =
      0;  ///< the enclave must give a sign of life this often, 0: its process living is enough
  std::optional<CpuSet>
      service_cores;  ///< Linux cores of a kitten or palacios enclave's own processes
  std::map<std::string, std::string> labels;
  std::vector<std::string> devices;  ///< to have alone, by their names ("vendor.com/class=name")
};

/// One thing wrong with a bundle.
struct Problem {
  std::string pointer;  ///< RFC 6901, "" is the whole document
  std::string found, allowed, remedy;
};

struct Bundle {
  std::string path;  ///< absolute folder
  oci::Config oci;
  HobbesSection hobbes;
  Json config;  ///< the whole file, unknown fields included

  /// Absolute path of the root file system, empty in host-root mode.
  [[nodiscard]] std::string rootfs() const;
  /// Absolute path of what a bind mount shows; a relative one is below the bundle's folder.
  [[nodiscard]] std::string source_of(const oci::Mount& mount) const;
  /// Whether people get a terminal: the process says so, or the image of a guest without an agent.
  [[nodiscard]] bool terminal() const {
    return hobbes.image.terminal || (oci.process && oci.process->terminal);
  }
};

/// Everything that is wrong, or a bundle. Never partial: `bundle` is set exactly when `problems` is
/// empty.
struct Validation {
  std::vector<Problem> problems;
  std::optional<Bundle> bundle;
};

/// Reads and validates `<folder>/config.json` and checks that what it names exists. Errors: the
/// file cannot be read or is not JSON. A readable but wrong file is not an Error but a Validation
/// with problems. `config`: another file to read in its place, its path relative to the working
/// directory.
/// `overrides`: what is changed in it before it is validated.
Result<Validation> validate_bundle(const std::string& folder, const std::string& config = {},
                                   const BundleOverrides& overrides = {});
/// As validate_bundle, for a document already parsed; touches no file.
/// `looked_at`: receives the JSON pointer of every property that was asked for, there or not.
Validation validate_config(const std::string& folder, const Json& config,
                           std::set<std::string>* looked_at = nullptr);
/// validate_bundle for callers that need a bundle: problems become one Error that lists them all.
Result<Bundle> load_bundle(const std::string& folder, const std::string& config = {},
                           const BundleOverrides& overrides = {});

/// One line per problem: "/hobbes/cores/count: found "two", allowed a whole number ...; remedy".
std::string report(const std::vector<Problem>& problems);
Json to_json(const std::vector<Problem>& problems);

/// Whether its program is confined by this Linux: namespaces, mounts, control groups. True of kind
/// `linux`, and of kind `kitten` with a process, whose system calls are executed there.
bool has_sandbox(const Bundle& bundle);

/// A valid config.json for a kind: what `hobbes-run spec` prints. `host_root`: no image needed.
Json example_config(Kind kind, bool host_root);

/// A process object (config.json "process", and the file given to `exec --process`). Problems are
/// appended with `pointer` in front.
std::optional<oci::Process> read_process(const Json& json, const std::string& pointer,
                                         std::vector<Problem>& problems);
/// A resources object (the file given to `update --resources`).
std::optional<oci::Resources> read_resources(const Json& json, const std::string& pointer,
                                             std::vector<Problem>& problems);

}  // namespace hobbes

// What hobbes-run has prepared for a virtual machine and its monitor needs to know: handed over as
// JSON in a memfd.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace hobbes {

struct VmPlan {
  std::string name;
  std::uint64_t handle = 0;
  std::vector<unsigned> cpus;  ///< one vCPU on each
  std::uint64_t memory = 0, page_size = 4096;
  std::uint64_t spare = 0;  ///< room for memory that is added while it runs
  std::string command_line;
  int initrd = -1, disk = -1;  ///< descriptors; -1: none
  bool disk_read_only = false;
  unsigned boot_seconds = 0;  ///< how long the agent may take to answer
  struct SegmentGrant {
    std::string pattern;       ///< of names, in which * stands for any characters
    bool composition = false;  ///< only those made in enclaves of this one's composition
    bool writable = false;
  };
  std::vector<SegmentGrant> segments;  ///< what the guest's programs may attach
  std::uint64_t segment_room = 0;      ///< bytes of segments that they may make
  struct Folder {
    int descriptor = -1;
    std::string tag;           ///< what the guest mounts it by
    bool read_only = false;    ///< for the guest; the mount behind the descriptor is, too
    std::uint64_t window = 0;  ///< bytes of addresses at which it maps files; 0: it maps copies
  };
  std::vector<Folder> folders;  ///< of the node, shared with the guest
  Json mounts = Json::array();  ///< for the agent (abi/agent.h)
  bool agent = false;           ///< the guest has one; without, it is a kernel of its own kind
  bool terminal = false;        ///< its serial port is the enclave's terminal
  Json process;                 ///< for the agent; null: it waits for programs of `exec`

  [[nodiscard]] Json json() const;
  static Result<VmPlan> parse(const std::string& text);
};

/// Each has an interrupt line, of which there are so many.
inline constexpr std::size_t vm_folder_limit = 12;

/// Descriptors of the monitor, in this order from 3 on; then those the plan names.
enum VmDescriptor : int {
  vm_kvm = 3,
  vm_program = 4,
  vm_socket = 5,
  vm_console = 6,
  vm_kernel = 7,
  vm_plan = 8
};

/// Whether a signal's default action ends a process: the others are not taken from a guest's word.
bool ends_processes(int signal);

/// The monitor's exit status when the guest asked for a reboot: EX_TEMPFAIL, run it again.
inline constexpr int vm_rebooted_status = 75;

}  // namespace hobbes

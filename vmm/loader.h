// Putting a kernel, its initial RAM disk and its command line into guest memory, and what the first
// vCPU starts with.
#pragma once
#include <string>

#include "vmm/memory.h"

namespace hobbes::vmm {

/// How the first vCPU starts.
struct EntryState {
  bool long_mode = false;  ///< 64-bit with the loader's page tables, else 32-bit without paging
  Gpa address = 0;
  std::uint64_t rbx = 0, rsi = 0;
};

struct KernelImage {
  int kernel = -1;  ///< descriptor; not owned
  int initrd = -1;  ///< -1: none
  std::string command_line;
};

/// An ELF image with a PVH entry note (vmlinux, Kitten; Xen's hvm/start_info.h) or a Linux bzImage
/// with the 64-bit entry (Linux Documentation/x86/boot.rst, protocol 2.12). Everything read from
/// the files is checked. Errors: Code::invalid and what is wrong with the image; Code::exhausted
/// when it does not fit into the guest.
Result<EntryState> load_guest(const GuestMemory& memory, const KernelImage& image, Gpa acpi_root);

}  // namespace hobbes::vmm

// Memory for co-kernels: whole blocks taken from Linux by offlining them, handed to the module's
// pool, given back when nobody uses them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/result.h"
#include "partition/module.h"
#include "topology/memory_blocks.h"

namespace hobbes {

/// What was taken is written down in `<journal>/<block number>` (its former state) before it is
/// taken, so that anybody can give it back. Only one at a time works on the pool: others wait on a
/// lock file there.
class MemoryPool {
 public:
  MemoryPool(const Files& files, std::string journal, std::string root = "/sys")
      : files_(files), journal_(std::move(journal)), root_(std::move(root)) {}

  /// Takes extents of `size` bytes in all on a node, offlining as many blocks as are missing.
  /// Offline blocks are used first. Errors: Code::exhausted, saying what could be had and which
  /// block Linux would not give because of which page and whom; a block that cannot be emptied
  /// costs six seconds, and after thirty no more are tried. No extent is kept then, and blocks
  /// taken meanwhile stay in the pool until `give_back`.
  Result<std::vector<Extent>> take(const ModuleEnclave& module, unsigned node,
                                   std::uint64_t size) const;
  /// Returns every block that no enclave uses to the state it had. Idempotent; finishes what a dead
  /// program began.
  Result<void> give_back(const ModuleEnclave& module) const;

 private:
  Result<Fd> lock() const;
  Result<void> gather(const ModuleEnclave& module, const MemoryBlock& block) const;
  Result<void> restore(const ModuleEnclave& module, unsigned block,
                       const std::vector<MemoryBlock>& blocks) const;
  [[nodiscard]] std::string block_path(unsigned number) const {
    return root_ + "/devices/system/memory/memory" + std::to_string(number);
  }

  const Files& files_;
  std::string journal_, root_;
};

}  // namespace hobbes

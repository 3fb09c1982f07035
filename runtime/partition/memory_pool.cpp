#include "partition/memory_pool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "core/size.h"
#include "partition/unmovable_page.h"

namespace hobbes {
namespace {

// Linux tries for ever to empty a block, unless a signal comes. Emptying 2 GiB takes about a
// second.
constexpr std::chrono::seconds block_patience{6};
constexpr std::chrono::seconds all_patience{30};

}  // namespace

Result<Fd> MemoryPool::lock() const {
  HOBBES_CHECK(make_directories(journal_, 0755));
  std::string path = journal_ + "/lock";
  Fd out(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!out) return os_error("open " + path, errno);
  while (::flock(out.get(), LOCK_EX) != 0)
    if (errno != EINTR) return os_error("lock " + path, errno);
  return out;
}

// The journal first, then Linux, then the module: whichever of them dies in between, `give_back`
// finds the note.
Result<void> MemoryPool::gather(const ModuleEnclave& module, const MemoryBlock& block) const {
  std::string note = journal_ + "/" + std::to_string(block.number);
  std::string before = !block.online   ? "offline"
                       : block.movable ? "online_movable"
                                       : "online_kernel";
  // A note that is there already is older and truer: the block is in the pool.
  if (files_.exists(note))
    return Error{Code::exists, "take memory block " + std::to_string(block.number),
                 "it is in the pool already", ""};
  HOBBES_CHECK(replace_file(note, before));
  std::uint64_t size = memory_block_size(files_, root_);
  KernelLog log;
  auto taken = block.online ? files_.write_within(block_path(block.number) + "/state", "offline",
                                                  block_patience)
                            : Result<void>();
  if (!taken) {
    ::unlink(note.c_str());
    Error error = std::move(taken).error();
    if (error.code == Code::timeout)
      error.cause =
          "it could not be emptied within " + std::to_string(block_patience.count()) + " s";
    if (auto page = unmovable_page(log.since(), block.number * size, size))
      error.cause += ", because of " + describe(*page, who_maps(*page));
    return error;
  }
  return module.pool_add(block.number * size, size, block.node);
}

Result<std::vector<Extent>> MemoryPool::take(const ModuleEnclave& module, unsigned node,
                                             std::uint64_t size) const {
  HOBBES_TRY(locked, lock());
  (void)locked;
  std::vector<Extent> out;
  std::uint64_t missing = size;
  auto draw = [&] {
    while (missing > 0) {
      auto extent = module.take_extent(node, missing);
      if (!extent) return;
      missing -= extent->size;
      out.push_back(*extent);
    }
  };
  std::vector<MemoryBlock> candidates;
  for (const MemoryBlock& block : memory_blocks(files_, root_))
    if (block.node == node && (!block.online || block.movable)) candidates.push_back(block);
  // Those that cost Linux nothing first, then the highest: what the kernel itself allocated early
  // lies low.
  std::sort(candidates.begin(), candidates.end(), [](const MemoryBlock& a, const MemoryBlock& b) {
    return a.online != b.online ? !a.online : a.online ? a.number > b.number : a.number < b.number;
  });
  draw();
  std::string refusals;
  std::chrono::steady_clock::duration in_vain{};
  for (const MemoryBlock& block : candidates) {
    if (missing == 0) break;
    if (block.online && in_vain > all_patience) {
      refusals += ", and after " + std::to_string(all_patience.count()) +
                  " s in vain no further block was tried";
      break;
    }
    auto begun = std::chrono::steady_clock::now();
    auto gathered = gather(module, block);
    if (!gathered) in_vain += std::chrono::steady_clock::now() - begun;
    if (gathered)
      draw();
    else if (gathered.error().code != Code::exists)
      refusals += (refusals.empty() ? "" : ", ") +
                  ("block " + std::to_string(block.number) + ": " + gathered.error().cause);
  }
  if (missing == 0) return out;
  for (const Extent& extent : out) (void)module.return_extent(extent.slot);
  return Error{Code::exhausted,
               "take " + format_size(size) + " of memory on NUMA node " + std::to_string(node) +
                   " from Linux",
               "only " + format_size(size - missing) + " can be had" +
                   (refusals.empty() ? "" : "; Linux keeps " + refusals),
               "keep memory removable with movable_node or movablecore= on the kernel command "
               "line, or ask for less"};
}

Result<void> MemoryPool::restore(const ModuleEnclave& module, unsigned number,
                                 const std::vector<MemoryBlock>& blocks) const {
  std::uint64_t size = memory_block_size(files_, root_);
  auto block = std::find_if(blocks.begin(), blocks.end(),
                            [&](const MemoryBlock& b) { return b.number == number; });
  std::string note = journal_ + "/" + std::to_string(number);
  if (block != blocks.end()) {
    auto removed = module.pool_remove(number * size, size, block->node);
    if (!removed && removed.error().code == Code::busy) return {};  // somebody still uses it
    if (!removed && removed.error().code != Code::not_found) return removed;
    std::string before = files_.read(note).value_or("offline");
    if (before != "offline" && !block->online)
      HOBBES_CHECK(files_.write(block_path(number) + "/state", before));
  }
  ::unlink(note.c_str());
  return {};
}

Result<void> MemoryPool::give_back(const ModuleEnclave& module) const {
  HOBBES_TRY(locked, lock());
  (void)locked;
  HOBBES_TRY(notes, files_.list(journal_));
  auto blocks = memory_blocks(files_, root_);
  std::optional<Error> first;
  for (const std::string& name : notes) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto restored =
        restore(module, static_cast<unsigned>(std::strtoul(name.c_str(), nullptr, 10)), blocks);
    if (!restored && !first) first = std::move(restored).error();
  }
  if (first) return std::move(*first);
  return {};
}

}  // namespace hobbes

// A folder of the node as its guest sees it: the words of FUSE (linux/fuse.h, protocol 7.31 and
// later) in virtio-fs' requests (virtio 1.2, 5.11). Nothing outside of the folder can be named:
// names are single ones, links are the guest's to follow.
#pragma once
#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <compare>
#include <map>
#include <string>
#include <unordered_map>

#include "core/fd.h"
#include "vmm/virtio/fs/dax_window.h"
#include "vmm/virtio/queue.h"

namespace hobbes::vmm {

/// Not thread-safe. Every node the guest remembers and every file it has open is a descriptor; when
/// they run out it hears ENFILE. A new file belongs to the user who made it in the guest, where the
/// node's file system lets this thread give it away. Set-id bits of files are not kept, devices are
/// not made, and only regular files and folders are opened, none of procfs. There are no extended
/// attributes. Locks are the guest's own.
class Folder {
 public:
  /// `root`: the folder, open for paths. `descriptors`: /proc/self/fd, likewise, by which a path
  /// becomes a file. `limit`: how many of them the guest may use up. `read_only`: the guest may
  /// keep what it knows for a second, since the folder is the node's to change and programs to
  /// start from. `window`: where the guest maps files, and outlives this; null when it maps copies
  /// of its own.
  Folder(Fd root, Fd descriptors, std::uint64_t limit, bool read_only = false,
         DaxWindow* window = nullptr);
  /// Serves one request; the number of bytes written into it.
  std::uint64_t serve(const DescriptorChain& chain);
  /// Forgets what the guest had open.
  void reset();
  [[nodiscard]] int root() const { return root_.get(); }

 private:
  class Request;
  struct Key {  // of a file as a mount shows it: it may be seen through several
    std::uint64_t mount = 0;
    dev_t device = 0;
    ino_t number = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Node {
    Fd path;
    Key key;
    mode_t type = 0;
    std::uint64_t lookups = 0;
  };

  // Each returns 0 or why not (errno).
  int dispatch(Request& request);
  int end(Request& request);
  int succeed(Request& request);
  int begin(Request& request);
  int lookup(Request& request);
  int attributes(Request& request);
  int change(Request& request);
  int make(Request& request);
  int remove(Request& request);
  int rename(Request& request);
  int link(Request& request);
  int read_link(Request& request);
  int open(Request& request);
  int create(Request& request);
  int read(Request& request);
  int write(Request& request);
  int list(Request& request);
  int synchronize(Request& request);
  int synchronize_all(Request& request);
  int allocate(Request& request);
  int seek(Request& request);
  int statistics(Request& request);
  int release(Request& request);
  int map(Request& request);
  int unmap(Request& request);
  void forget(Request& request);

  /// What the guest is told of a file. It may be about to learn that the file has grown.
  [[nodiscard]] fuse_attr attributes_of(const struct stat& info) const;
  [[nodiscard]] int path_of(std::uint64_t node) const;
  [[nodiscard]] int file_of(std::uint64_t handle) const;
  int enter(int parent, const std::string& name, fuse_entry_out& out);
  int give(int parent, int at, const char* name, int flags, const fuse_in_header& header) const;
  void follow(int file) const;
  static int check_mappable(const Node& node);
  int reopen(std::uint64_t node, int flags, Fd& out) const;
  std::uint64_t keep(Fd file);
  void forget(std::uint64_t node, std::uint64_t lookups);
  [[nodiscard]] bool full() const {
    return nodes_.size() + handles_.size() + (maps_ ? window_->mappings() : 0) >= limit_;
  }

  Fd root_, descriptors_;
  std::uint64_t limit_;
  bool read_only_;
  DaxWindow* window_;
  bool maps_ = false;  ///< the guest uses the window
  std::uint64_t next_node_ = 2, next_handle_ = 1;
  std::unordered_map<std::uint64_t, Node> nodes_;
  std::map<Key, std::uint64_t> numbers_;
  std::unordered_map<std::uint64_t, Fd> handles_;
};

}  // namespace hobbes::vmm

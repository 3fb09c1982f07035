#include "vmm/virtio/fs/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

namespace hobbes::vmm {
namespace {

constexpr std::uint32_t oldest_minor = 31;  // the first with virtio-fs
constexpr std::uint32_t transfer_limit = 256 << 10;
constexpr std::uint64_t read_only_lifetime = 1;  // seconds
constexpr std::size_t name_limit =
    1024;  // FUSE's own; what is too long for the node it says itself

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

std::uint64_t mount_of(int path) {
  struct statx info {};
  return ::statx(path, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) == 0 &&
                 (info.stx_mask & STATX_MNT_ID) != 0
             ? info.stx_mnt_id
             : 0;
}

int look_at(int path, struct stat& info) {
  return ::fstatat(path, "", &info, AT_EMPTY_PATH) == 0 ? 0 : errno;
}

// A file that could be executed as its owner on the node would be a door out of the guest.
mode_t without_set_id(mode_t mode) {
  return S_ISDIR(mode) ? mode : mode & ~static_cast<mode_t>(S_ISUID | S_ISGID);
}

// Appending is said with each write: pages that the guest writes back have places of their own.
int open_flags(std::uint32_t asked) {
  return static_cast<int>(asked &
                          static_cast<std::uint32_t>(O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)) |
         O_CLOEXEC | O_NOFOLLOW;
}

// The parts of a chain from `skip` on, at most `size` bytes of them.
template <class Part>
std::vector<iovec> vector_of(const std::vector<Part>& parts, std::uint64_t skip,
                             std::uint64_t size) {
  std::vector<iovec> out;
  for (const Part& part : parts) {
    std::uint64_t skipped = std::min<std::uint64_t>(skip, part.size());
    skip -= skipped;
    std::uint64_t taken = std::min<std::uint64_t>(part.size() - skipped, size);
    size -= taken;
    if (taken != 0) out.push_back({const_cast<std::byte*>(part.data()) + skipped, taken});
  }
  return out;
}

}  // namespace

// One request: its arguments are copied before they are looked at, since the guest may still write.
class Folder::Request {
 public:
  explicit Request(const DescriptorChain& all) : chain(all) {
    good = chain.take(0, std::as_writable_bytes(std::span(&header, 1))) &&
           chain.writable_size() >= sizeof(fuse_out_header);
  }

  template <class T>
  bool take(T& out) {
    bool there = chain.take(at_, std::as_writable_bytes(std::span(&out, 1)));
    at_ += sizeof(T);
    return there;
  }
  bool take_text(std::string& out, std::size_t limit) {
    std::uint64_t all = chain.readable_size();
    if (at_ >= all) return false;
    out.resize(std::min<std::uint64_t>(all - at_, limit + 1));
    if (!chain.take(at_, std::as_writable_bytes(std::span(out)))) return false;
    std::size_t end = out.find('\0');
    if (end == std::string::npos) return false;
    out.resize(end);
    at_ += end + 1;
    return true;
  }
  /// A name in a folder: one that stays in it.
  bool take_name(std::string& out) {
    return take_text(out, name_limit) && !out.empty() && out != "." && out != ".." &&
           out.find('/') == std::string::npos;
  }
  /// Room for an answer's content.
  [[nodiscard]] std::uint64_t room() const {
    return chain.writable_size() - sizeof(fuse_out_header);
  }
  void answer(std::span<const std::byte> content) {
    written += chain.give(sizeof(fuse_out_header) + written, content);
  }
  [[nodiscard]] std::uint64_t finish(int error) {
    if (error != 0) written = 0;
    fuse_out_header out{static_cast<std::uint32_t>(sizeof out + written), -error, header.unique};
    chain.give(0, bytes_of(out));
    return out.len;
  }

  const DescriptorChain& chain;
  fuse_in_header header{};
  bool good = false;
  std::uint64_t written = 0;  // of the answer's content

 private:
  std::uint64_t at_ = sizeof(fuse_in_header);
};

Folder::Folder(Fd root, Fd descriptors, std::uint64_t limit, bool read_only, DaxWindow* window)
    : root_(std::move(root)),
      descriptors_(std::move(descriptors)),
      limit_(limit),
      read_only_(read_only),
      window_(window) {}

void Folder::reset() {
  maps_ = false;
  if (window_ != nullptr) window_->reset();
  nodes_.clear();
  numbers_.clear();
  handles_.clear();
}

std::uint64_t Folder::serve(const DescriptorChain& chain) {
  Request request(chain);
  if (request.header.opcode == FUSE_FORGET || request.header.opcode == FUSE_BATCH_FORGET) {
    forget(request);
    return 0;  // nobody waits for an answer
  }
  if (!request.good) return 0;
  return request.finish(dispatch(request));
}

int Folder::dispatch(Request& request) {
  using Operation = int (Folder::*)(Request&);
  static const std::unordered_map<std::uint32_t, Operation> operations = {
      {FUSE_INIT, &Folder::begin},
      {FUSE_DESTROY, &Folder::end},
      {FUSE_LOOKUP, &Folder::lookup},
      {FUSE_GETATTR, &Folder::attributes},
      {FUSE_SETATTR, &Folder::change},
      {FUSE_MKDIR, &Folder::make},
      {FUSE_MKNOD, &Folder::make},
      {FUSE_SYMLINK, &Folder::make},
      {FUSE_UNLINK, &Folder::remove},
      {FUSE_RMDIR, &Folder::remove},
      {FUSE_RENAME, &Folder::rename},
      {FUSE_RENAME2, &Folder::rename},
      {FUSE_LINK, &Folder::link},
      {FUSE_READLINK, &Folder::read_link},
      {FUSE_OPEN, &Folder::open},
      {FUSE_OPENDIR, &Folder::open},
      {FUSE_CREATE, &Folder::create},
      {FUSE_READ, &Folder::read},
      {FUSE_WRITE, &Folder::write},
      {FUSE_READDIR, &Folder::list},
      {FUSE_FSYNC, &Folder::synchronize},
      {FUSE_FSYNCDIR, &Folder::synchronize},
      {FUSE_SYNCFS, &Folder::synchronize_all},
      {FUSE_FALLOCATE, &Folder::allocate},
      {FUSE_LSEEK, &Folder::seek},
      {FUSE_STATFS, &Folder::statistics},
      {FUSE_RELEASE, &Folder::release},
      {FUSE_RELEASEDIR, &Folder::release},
      {FUSE_FLUSH, &Folder::succeed},
      {FUSE_SETUPMAPPING, &Folder::map},
      {FUSE_REMOVEMAPPING, &Folder::unmap},
  };
  auto at = operations.find(request.header.opcode);
  return at == operations.end() ? ENOSYS : (this->*at->second)(request);
}

int Folder::end(Request&) {
  reset();
  return 0;
}

// What was written is with the node's kernel already.
int Folder::succeed(Request&) { return 0; }

int Folder::begin(Request& request) {
  struct {
    std::uint32_t major, minor, max_readahead, flags;
  } in{};  // the beginning of fuse_init_in, which is all that kernels before Linux 5.17 send
  if (!request.take(in)) return EINVAL;
  std::uint32_t more = 0;  // the upper half of the flags
  if ((in.flags & FUSE_INIT_EXT) != 0 && !request.take(more)) return EINVAL;
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) {  // it will ask again in our version
    request.answer(bytes_of(out));
    return 0;
  }
  if (in.major < FUSE_KERNEL_VERSION || in.minor < oldest_minor) return EPROTO;
  reset();
  constexpr std::uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                                   FUSE_AUTO_INVAL_DATA | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                                   FUSE_SUBMOUNTS;
  out.max_readahead = in.max_readahead;
  out.flags = in.flags & wanted;
  out.max_background = 16;
  out.congestion_threshold = 12;
  out.max_write = transfer_limit;
  out.max_pages = transfer_limit / 4096;
  out.time_gran = 1;
  constexpr std::uint32_t by_file = FUSE_HAS_INODE_DAX >> 32U;
  maps_ = window_ != nullptr && (in.flags & FUSE_MAP_ALIGNMENT) != 0 && (more & by_file) != 0;
  if (window_ != nullptr) window_->reset(maps_);
  if (maps_) {
    out.flags |= FUSE_INIT_EXT | FUSE_MAP_ALIGNMENT;
    out.flags2 = by_file;
    out.map_alignment = 12;  // pages
  }
  request.answer(bytes_of(out));
  return 0;
}

fuse_attr Folder::attributes_of(const struct stat& info) const {
  fuse_attr out{};
  out.ino = info.st_ino;
  out.size = static_cast<std::uint64_t>(info.st_size);
  out.blocks = static_cast<std::uint64_t>(info.st_blocks);
  out.atime = static_cast<std::uint64_t>(info.st_atim.tv_sec);
  out.mtime = static_cast<std::uint64_t>(info.st_mtim.tv_sec);
  out.ctime = static_cast<std::uint64_t>(info.st_ctim.tv_sec);
  out.atimensec = static_cast<std::uint32_t>(info.st_atim.tv_nsec);
  out.mtimensec = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
  out.ctimensec = static_cast<std::uint32_t>(info.st_ctim.tv_nsec);
  out.mode = info.st_mode;
  out.nlink = static_cast<std::uint32_t>(info.st_nlink);
  out.uid = info.st_uid;
  out.gid = info.st_gid;
  out.rdev = static_cast<std::uint32_t>(info.st_rdev);
  out.blksize = static_cast<std::uint32_t>(info.st_blksize);
  if (maps_ && S_ISREG(info.st_mode)) {
    out.flags = FUSE_ATTR_DAX;
    out.blksize = 4096;  // else Linux writes nothing back, and close(2) fails with EIO
    window_->follow_size(info.st_dev, info.st_ino, out.size);
  }
  return out;
}

int Folder::path_of(std::uint64_t node) const {
  if (node == FUSE_ROOT_ID) return root_.get();
  auto at = nodes_.find(node);
  return at == nodes_.end() ? -1 : at->second.path.get();
}

int Folder::file_of(std::uint64_t handle) const {
  auto at = handles_.find(handle);
  return at == handles_.end() ? -1 : at->second.get();
}

std::uint64_t Folder::keep(Fd file) {
  handles_.emplace(next_handle_, std::move(file));
  return next_handle_++;
}

// The node behind a name, known from now on until the guest forgets it as often as it was told of
// it. Lifetimes of 0: the node may change what is there, so the guest asks each time, but for
// folders that it cannot write. Where another file system begins the guest is told, since inode
// numbers begin anew there.
int Folder::enter(int parent, const std::string& name, fuse_entry_out& out) {
  Fd path(::openat(parent, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!path) return errno;
  struct stat info {
  }, around{};
  int error = look_at(path.get(), info);
  if (error == 0) error = look_at(parent, around);
  if (error != 0) return error;
  Key key{mount_of(path.get()), info.st_dev, info.st_ino};
  bool begins =
      S_ISDIR(info.st_mode) && (key.mount != mount_of(parent) || info.st_dev != around.st_dev);
  auto at = numbers_.find(key);
  // A file system may use a number again while the guest still remembers the file that had it.
  if (at != numbers_.end() && nodes_.at(at->second).type != (info.st_mode & S_IFMT)) {
    numbers_.erase(at);
    at = numbers_.end();
  }
  if (at == numbers_.end()) {
    if (full()) return ENFILE;
    nodes_.emplace(next_node_, Node{std::move(path), key, info.st_mode & S_IFMT, 0});
    at = numbers_.emplace(key, next_node_++).first;
  }
  ++nodes_.at(at->second).lookups;
  out = {};
  out.nodeid = at->second;
  if (read_only_) out.entry_valid = out.attr_valid = read_only_lifetime;
  out.generation = 0;  // Linux 6.1 takes a folder that begins a mount for another one otherwise
  out.attr = attributes_of(info);
  if (begins) out.attr.flags |= FUSE_ATTR_SUBMOUNT;
  return 0;
}

int Folder::lookup(Request& request) {
  std::string name;
  int parent = path_of(request.header.nodeid);
  if (parent < 0) return ESTALE;
  if (!request.take_name(name)) return EINVAL;
  fuse_entry_out out{};
  if (int error = enter(parent, name, out); error != 0) return error;
  request.answer(bytes_of(out));
  return 0;
}

void Folder::forget(std::uint64_t node, std::uint64_t lookups) {
  auto at = nodes_.find(node);
  if (at == nodes_.end()) return;
  at->second.lookups -= std::min(lookups, at->second.lookups);
  if (at->second.lookups != 0) return;
  if (auto number = numbers_.find(at->second.key);
      number != numbers_.end() && number->second == node)
    numbers_.erase(number);
  nodes_.erase(at);
}

void Folder::forget(Request& request) {
  if (request.header.opcode == FUSE_FORGET) {
    fuse_forget_in in{};
    if (request.take(in)) forget(request.header.nodeid, in.nlookup);
    return;
  }
  fuse_batch_forget_in batch{};
  if (!request.take(batch)) return;
  fuse_forget_one one{};
  for (std::uint32_t i = 0; i < batch.count && request.take(one); ++i)
    forget(one.nodeid, one.nlookup);
}

int Folder::attributes(Request& request) {
  int path = path_of(request.header.nodeid);
  if (path < 0) return ESTALE;
  struct stat info {};
  if (int error = look_at(path, info); error != 0) return error;
  fuse_attr_out out{};
  if (read_only_) out.attr_valid = read_only_lifetime;
  out.attr = attributes_of(info);
  request.answer(bytes_of(out));
  return 0;
}

// A path that is open becomes an open file; only of kinds whose opening does nothing but that.
int Folder::reopen(std::uint64_t node, int flags, Fd& out) const {
  auto at = nodes_.find(node);
  mode_t type = node == FUSE_ROOT_ID ? S_IFDIR : at == nodes_.end() ? 0 : at->second.type;
  if (type == 0) return ESTALE;
  if (type != S_IFREG && type != S_IFDIR) return EACCES;
  // A process may open its own memory by procfs, and this one's is no business of the guest's.
  if (struct statfs system{}; type == S_IFREG && ::fstatfs(path_of(node), &system) == 0 &&
                              system.f_type == PROC_SUPER_MAGIC)
    return EACCES;
  out.reset(
      ::openat(descriptors_.get(), std::to_string(path_of(node)).c_str(), flags & ~O_NOFOLLOW));
  return out ? 0 : errno;
}

int Folder::change(Request& request) {
  fuse_setattr_in in{};
  int path = path_of(request.header.nodeid);
  if (path < 0) return ESTALE;
  if (!request.take(in)) return EINVAL;
  struct stat info {};
  if (int error = look_at(path, info); error != 0) return error;
  std::string name = std::to_string(path);
  if ((in.valid & (FATTR_UID | FATTR_GID)) != 0) {
    uid_t uid = (in.valid & FATTR_UID) != 0 ? in.uid : static_cast<uid_t>(-1);
    gid_t gid = (in.valid & FATTR_GID) != 0 ? in.gid : static_cast<gid_t>(-1);
    if (::fchownat(path, "", uid, gid, AT_EMPTY_PATH) != 0) return errno;
  }
  if ((in.valid & FATTR_MODE) != 0) {
    if (S_ISLNK(info.st_mode)) return EOPNOTSUPP;
    mode_t mode = without_set_id((info.st_mode & S_IFMT) | (in.mode & 07777)) & 07777;
    if (::fchmodat(descriptors_.get(), name.c_str(), mode, 0) != 0) return errno;
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    Fd opened;
    int file = (in.valid & FATTR_FH) != 0 ? file_of(in.fh) : -1;
    if (file < 0) {
      if (int error = reopen(request.header.nodeid, O_WRONLY | O_CLOEXEC, opened); error != 0)
        return error;
      file = opened.get();
    }
    if (::ftruncate(file, static_cast<off_t>(in.size)) != 0) return errno;
  }
  if ((in.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
    auto time = [&](std::uint32_t set, std::uint32_t now, std::uint64_t seconds,
                    std::uint32_t nanoseconds) {
      timespec out{0, UTIME_OMIT};
      if ((in.valid & now) != 0)
        out.tv_nsec = UTIME_NOW;
      else if ((in.valid & set) != 0)
        out = {static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
      return out;
    };
    timespec times[2] = {time(FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
                         time(FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
    if (::utimensat(path, "", times, AT_EMPTY_PATH) != 0) return errno;
  }
  return attributes(request);
}

// A new file belongs to the program that made it, or, in a folder that says so, to that folder's
// group; or to us, where the node's file system gives nothing away.
int Folder::give(int parent, int at, const char* name, int flags,
                 const fuse_in_header& header) const {
  struct stat info {};
  if (int error = look_at(parent, info); error != 0) return error;
  gid_t group = (info.st_mode & S_ISGID) != 0 ? static_cast<gid_t>(-1) : header.gid;
  return ::fchownat(at, name, header.uid, group, flags) == 0 || errno == EPERM ? 0 : errno;
}

int Folder::make(Request& request) {
  int parent = path_of(request.header.nodeid);
  if (parent < 0) return ESTALE;
  if (full()) return ENFILE;
  int made = -1;
  std::string name, target;
  bool is_folder = false;
  if (request.header.opcode == FUSE_MKDIR) {
    fuse_mkdir_in in{};
    if (!request.take(in) || !request.take_name(name)) return EINVAL;
    is_folder = true;
    made = ::mkdirat(parent, name.c_str(), in.mode & 07777);
  } else if (request.header.opcode == FUSE_MKNOD) {
    fuse_mknod_in in{};
    if (!request.take(in) || !request.take_name(name)) return EINVAL;
    mode_t type = in.mode & S_IFMT;
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return EPERM;
    made = ::mknodat(parent, name.c_str(),
                     type | (without_set_id(type | (in.mode & 07777)) & 07777), 0);
  } else {
    if (!request.take_name(name) || !request.take_text(target, PATH_MAX)) return EINVAL;
    made = ::symlinkat(target.c_str(), parent, name.c_str());
  }
  if (made != 0) return errno;
  fuse_entry_out out{};
  int error = give(parent, parent, name.c_str(), AT_SYMLINK_NOFOLLOW, request.header);
  if (error == 0) error = enter(parent, name, out);
  if (error != 0) {
    (void)::unlinkat(parent, name.c_str(), is_folder ? AT_REMOVEDIR : 0);
    return error;
  }
  request.answer(bytes_of(out));
  return 0;
}

int Folder::remove(Request& request) {
  std::string name;
  int parent = path_of(request.header.nodeid);
  if (parent < 0) return ESTALE;
  if (!request.take_name(name)) return EINVAL;
  return ::unlinkat(parent, name.c_str(), request.header.opcode == FUSE_RMDIR ? AT_REMOVEDIR : 0) ==
                 0
             ? 0
             : errno;
}

int Folder::rename(Request& request) {
  fuse_rename2_in in{};
  std::string from, to;
  if (request.header.opcode == FUSE_RENAME2 ? !request.take(in) : !request.take(in.newdir))
    return EINVAL;
  int parent = path_of(request.header.nodeid);
  int target = path_of(in.newdir);
  if (parent < 0 || target < 0) return ESTALE;
  if (!request.take_name(from) || !request.take_name(to) ||
      (in.flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0)
    return EINVAL;
  return ::renameat2(parent, from.c_str(), target, to.c_str(), in.flags) == 0 ? 0 : errno;
}

int Folder::link(Request& request) {
  fuse_link_in in{};
  std::string name;
  int parent = path_of(request.header.nodeid);
  if (!request.take(in)) return EINVAL;
  int old = path_of(in.oldnodeid);
  if (parent < 0 || old < 0) return ESTALE;
  if (!request.take_name(name)) return EINVAL;
  if (full()) return ENFILE;
  if (::linkat(descriptors_.get(), std::to_string(old).c_str(), parent, name.c_str(),
               AT_SYMLINK_FOLLOW) != 0)
    return errno;
  fuse_entry_out out{};
  if (int error = enter(parent, name, out); error != 0) return error;
  request.answer(bytes_of(out));
  return 0;
}

int Folder::read_link(Request& request) {
  int path = path_of(request.header.nodeid);
  if (path < 0) return ESTALE;
  std::array<char, PATH_MAX> target{};
  ssize_t size = ::readlinkat(path, "", target.data(), target.size());
  if (size < 0) return errno;
  request.answer(std::as_bytes(std::span(target).first(static_cast<std::size_t>(size))));
  return 0;
}

int Folder::open(Request& request) {
  fuse_open_in in{};
  if (!request.take(in)) return EINVAL;
  if (full()) return ENFILE;
  bool is_folder = request.header.opcode == FUSE_OPENDIR;
  Fd file;
  if (int error =
          reopen(request.header.nodeid,
                 is_folder ? O_RDONLY | O_DIRECTORY | O_CLOEXEC : open_flags(in.flags), file);
      error != 0)
    return error;
  // What the guest has read of a file it drops when the file has changed (FUSE_AUTO_INVAL_DATA).
  // Two changes within one tick of the clock look like one, which is good enough for programs.
  const std::uint32_t how = !read_only_ ? 0U : is_folder ? FOPEN_CACHE_DIR : FOPEN_KEEP_CACHE;
  fuse_open_out out{keep(std::move(file)), how, 0};
  request.answer(bytes_of(out));
  return 0;
}

int Folder::create(Request& request) {
  fuse_create_in in{};
  std::string name;
  int parent = path_of(request.header.nodeid);
  if (parent < 0) return ESTALE;
  if (!request.take(in) || !request.take_name(name)) return EINVAL;
  if (full()) return ENFILE;
  fuse_entry_out entry{};
  // Never both made and found by one call: what is found may be something whose opening does more.
  Fd file(::openat(parent, name.c_str(), open_flags(in.flags) | O_CREAT | O_EXCL,
                   without_set_id(S_IFREG | (in.mode & 07777)) & 07777));
  int error = file ? give(parent, file.get(), "", AT_EMPTY_PATH, request.header) : errno;
  if (error == 0) error = enter(parent, name, entry);
  if (file && error != 0) (void)::unlinkat(parent, name.c_str(), 0);
  if (!file && error == EEXIST && (in.flags & O_EXCL) == 0) {
    error = enter(parent, name, entry);
    if (error == 0 && (error = reopen(entry.nodeid, open_flags(in.flags), file)) != 0)
      forget(entry.nodeid, 1);
  }
  if (error != 0) return error;
  fuse_open_out out{keep(std::move(file)), 0, 0};
  request.answer(bytes_of(entry));
  request.answer(bytes_of(out));
  return 0;
}

int Folder::read(Request& request) {
  fuse_read_in in{};
  if (!request.take(in)) return EINVAL;
  int file = file_of(in.fh);
  if (file < 0) return EBADF;
  auto parts =
      vector_of(request.chain.writable, sizeof(fuse_out_header), std::min(in.size, transfer_limit));
  ssize_t size =
      ::preadv(file, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(in.offset));
  if (size < 0) return errno;
  request.written = static_cast<std::uint64_t>(size);
  return 0;
}

int Folder::write(Request& request) {
  fuse_write_in in{};
  if (!request.take(in)) return EINVAL;
  int file = file_of(in.fh);
  if (file < 0) return EBADF;
  if (in.size > transfer_limit) return EINVAL;
  auto parts = vector_of(request.chain.readable, sizeof(fuse_in_header) + sizeof in, in.size);
  bool appends = (in.flags & O_APPEND) != 0 && (in.write_flags & FUSE_WRITE_CACHE) == 0;
  ssize_t size = ::pwritev2(file, parts.data(), static_cast<int>(parts.size()),
                            static_cast<off_t>(in.offset), appends ? RWF_APPEND : 0);
  if (size < 0) return errno;
  follow(file);
  fuse_write_out out{static_cast<std::uint32_t>(size), 0};
  request.answer(bytes_of(out));
  return 0;
}

int Folder::list(Request& request) {
  fuse_read_in in{};
  if (!request.take(in)) return EINVAL;
  int folder = file_of(in.fh);
  if (folder < 0) return EBADF;
  if (::lseek(folder, static_cast<off_t>(in.offset), SEEK_SET) < 0) return errno;
  std::uint64_t room = std::min<std::uint64_t>(request.room(), in.size);
  alignas(dirent64) std::array<char, 32768> entries{};
  long size = ::syscall(SYS_getdents64, folder, entries.data(), entries.size());
  if (size < 0) return errno;
  for (long at = 0; at < size;) {
    const auto* entry = reinterpret_cast<const dirent64*>(entries.data() + at);
    std::string_view name(entry->d_name);
    fuse_dirent out{entry->d_ino, static_cast<std::uint64_t>(entry->d_off),
                    static_cast<std::uint32_t>(name.size()), entry->d_type};
    std::uint64_t whole = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
    if (request.written + whole > room) break;  // the guest goes on behind the last one it got
    constexpr std::byte padding[8] = {};
    request.answer(bytes_of(out));
    request.answer(std::as_bytes(std::span(name)));
    request.answer(std::span(padding).first(whole - FUSE_NAME_OFFSET - name.size()));
    at += entry->d_reclen;
  }
  return 0;
}

int Folder::synchronize(Request& request) {
  fuse_fsync_in in{};
  if (!request.take(in)) return EINVAL;
  int file = file_of(in.fh);
  if (file < 0) return EBADF;
  return ((in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0 ? ::fdatasync(file) : ::fsync(file)) == 0
             ? 0
             : errno;
}

int Folder::synchronize_all(Request& request) {
  Fd folder;
  if (int error = reopen(request.header.nodeid, O_RDONLY | O_DIRECTORY | O_CLOEXEC, folder);
      error != 0)
    return error;
  return ::syncfs(folder.get()) == 0 ? 0 : errno;
}

int Folder::allocate(Request& request) {
  fuse_fallocate_in in{};
  if (!request.take(in)) return EINVAL;
  int file = file_of(in.fh);
  if (file < 0) return EBADF;
  if (::fallocate(file, static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                  static_cast<off_t>(in.length)) != 0)
    return errno;
  follow(file);
  return 0;
}

int Folder::seek(Request& request) {
  fuse_lseek_in in{};
  if (!request.take(in)) return EINVAL;
  int file = file_of(in.fh);
  if (file < 0) return EBADF;
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return EINVAL;
  off_t at = ::lseek(file, static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (at < 0) return errno;
  fuse_lseek_out out{static_cast<std::uint64_t>(at)};
  request.answer(bytes_of(out));
  return 0;
}

int Folder::statistics(Request& request) {
  struct statfs info {};
  if (::fstatfs(root_.get(), &info) != 0) return errno;
  fuse_statfs_out out{};
  out.st.blocks = info.f_blocks;
  out.st.bfree = info.f_bfree;
  out.st.bavail = info.f_bavail;
  out.st.files = info.f_files;
  out.st.ffree = info.f_ffree;
  out.st.bsize = static_cast<std::uint32_t>(info.f_bsize);
  out.st.namelen = static_cast<std::uint32_t>(info.f_namelen);
  out.st.frsize = static_cast<std::uint32_t>(info.f_frsize);
  request.answer(bytes_of(out));
  return 0;
}

int Folder::release(Request& request) {
  fuse_release_in in{};
  if (!request.take(in)) return EINVAL;
  return handles_.erase(in.fh) == 1 ? 0 : EBADF;
}

// A file that the guest has made longer, which it knows without being told.
void Folder::follow(int file) const {
  struct stat info {};
  if (maps_ && ::fstat(file, &info) == 0)
    window_->follow_size(info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size));
}

// Only of file systems that keep files: mapping the files of others may mean a device's registers
// (sysfs), or huge pages that other programs count on.
int Folder::check_mappable(const Node& node) {
  constexpr std::array<std::uint32_t, 13> others = {
      SYSFS_MAGIC,        PROC_SUPER_MAGIC,    DEBUGFS_MAGIC,     TRACEFS_MAGIC,  HUGETLBFS_MAGIC,
      CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, SECURITYFS_MAGIC,  EFIVARFS_MAGIC, PSTOREFS_MAGIC,
      SELINUX_MAGIC,      BPF_FS_MAGIC,        DEVPTS_SUPER_MAGIC};
  struct statfs system {};
  if (::fstatfs(node.path.get(), &system) != 0) return errno;
  const auto type = static_cast<std::uint32_t>(system.f_type);
  return std::find(others.begin(), others.end(), type) == others.end() ? 0 : EACCES;
}

// Drivers name the file by its node and no open one, so it is opened once more, by the rights that
// its mount gives.
int Folder::map(Request& request) {
  fuse_setupmapping_in in{};
  if (!request.take(in)) return EINVAL;
  if (!maps_) return ENOSYS;
  auto node = nodes_.find(request.header.nodeid);
  if (node == nodes_.end()) return ESTALE;
  if (node->second.type != S_IFREG) return EINVAL;
  if (full()) return ENFILE;
  if (int error = check_mappable(node->second); error != 0) return error;
  const bool writable = (in.flags & FUSE_SETUPMAPPING_FLAG_WRITE) != 0;
  Fd file;
  if (int error = reopen(request.header.nodeid, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, file);
      error != 0)
    return error;
  // Writes to a mapping drop no set-id bits, as those by write(2) do.
  struct stat info {};
  if (writable && ::fstat(file.get(), &info) == 0 && without_set_id(info.st_mode) != info.st_mode &&
      ::fchmodat(descriptors_.get(), std::to_string(path_of(request.header.nodeid)).c_str(),
                 without_set_id(info.st_mode) & 07777, 0) != 0)
    return errno;
  return window_->map(std::move(file), in.foffset, in.len, in.moffset, writable);
}

int Folder::unmap(Request& request) {
  fuse_removemapping_in in{};
  if (!request.take(in)) return EINVAL;
  if (!maps_) return ENOSYS;
  fuse_removemapping_one one{};
  for (std::uint32_t i = 0; i < in.count; ++i) {
    if (!request.take(one)) return EINVAL;
    if (int error = window_->unmap(one.moffset, one.len); error != 0) return error;
  }
  return 0;
}

}  // namespace hobbes::vmm

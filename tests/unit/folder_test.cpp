// Shared folders of virtual machines: what a guest's kernel asks in FUSE's words, and what a
// hostile one would.
#include "vmm/virtio/fs/folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "core/file.h"

namespace hobbes::vmm {
namespace {

struct Answer {
  int error = 0;
  std::string content;
  template <class T>
  [[nodiscard]] T as(std::size_t at = 0) const {
    T out{};
    EXPECT_GE(content.size(), at + sizeof(T));
    if (content.size() >= at + sizeof(T)) std::memcpy(&out, content.data() + at, sizeof(T));
    return out;
  }
};

std::string name(const std::string& text) { return text + '\0'; }
template <class T>
std::string raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// A folder with a neighbour that no guest may reach.
class FolderOfAGuest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::umask(0);  // as the thread that serves a folder has it
    char path[] = "/tmp/folder.XXXXXX";
    top = ::mkdtemp(path);
    inside = top + "/inside";
    ASSERT_EQ(::mkdir(inside.c_str(), 0755), 0);
    ASSERT_TRUE(replace_file(top + "/outside", "untouched"));
    folder = open_folder(inside, 10000);
    auto out = begin();
    EXPECT_EQ(out.major, unsigned{FUSE_KERNEL_VERSION});
    EXPECT_EQ(out.flags & FUSE_WRITEBACK_CACHE, 0U) << "the node would not see what is written";
    EXPECT_EQ(out.flags & FUSE_MAP_ALIGNMENT, 0U) << "it has no window";
  }
  fuse_init_out begin() {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = FUSE_KERNEL_MINOR_VERSION;
    in.flags = in.flags2 = ~0U;
    return ask(FUSE_INIT, 0, raw(in)).as<fuse_init_out>();
  }
  void TearDown() override {
    EXPECT_EQ(Files::system().read(top + "/outside").value_or(""), "untouched");
    (void)remove_tree(top);
  }
  static std::unique_ptr<Folder> open_folder(const std::string& path, std::uint64_t limit,
                                             DaxWindow* window = nullptr) {
    return std::make_unique<Folder>(Fd(::open(path.c_str(), O_PATH | O_CLOEXEC)),
                                    Fd(::open("/proc/self/fd", O_PATH | O_CLOEXEC)), limit, false,
                                    window);
  }
  Answer ask(std::uint32_t operation, std::uint64_t node, const std::string& arguments = "",
             std::size_t room = 4096) {
    fuse_in_header header{};
    header.opcode = operation;
    header.nodeid = node;
    header.unique = ++unique;
    header.uid = 1234;
    header.gid = 99;
    std::string request = raw(header) + arguments;
    header.len = static_cast<std::uint32_t>(request.size());
    // In pieces, as drivers hand them over.
    std::vector<std::byte> space(sizeof(fuse_out_header) + room);
    DescriptorChain chain;
    auto bytes = std::as_bytes(std::span(request));
    std::size_t cut = std::min<std::size_t>(bytes.size(), 43);
    chain.readable = {bytes.first(cut), bytes.subspan(cut)};
    chain.writable = {std::span(space).first(sizeof(fuse_out_header)),
                      std::span(space).subspan(sizeof(fuse_out_header))};
    std::uint64_t written = folder->serve(chain);
    if (written == 0) return {-1, ""};
    fuse_out_header out{};
    std::memcpy(&out, space.data(), sizeof out);
    EXPECT_EQ(out.unique, unique);
    EXPECT_EQ(out.len, written);
    EXPECT_LE(written, space.size());
    return {-out.error, std::string(reinterpret_cast<const char*>(space.data()) + sizeof out,
                                    written - sizeof out)};
  }
  Answer create(std::uint64_t parent, const std::string& file, unsigned flags = O_RDWR,
                unsigned mode = 0644) {
    return ask(FUSE_CREATE, parent, raw(fuse_create_in{flags, mode, 0, 0}) + name(file));
  }
  static std::uint64_t handle_of(const Answer& created) {
    return created.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  }
  Answer write(std::uint64_t handle, std::uint64_t at, const std::string& text) {
    fuse_write_in in{};
    in.fh = handle;
    in.offset = at;
    in.size = static_cast<std::uint32_t>(text.size());
    return ask(FUSE_WRITE, 0, raw(in) + text);
  }
  Answer read(std::uint64_t handle, std::uint64_t at, std::uint32_t size,
              std::uint32_t operation = FUSE_READ, std::size_t room = 4096) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = at;
    in.size = size;
    return ask(operation, 0, raw(in), room);
  }
  std::uint64_t node(const std::string& file, std::uint64_t parent = FUSE_ROOT_ID) {
    Answer found = ask(FUSE_LOOKUP, parent, name(file));
    EXPECT_EQ(found.error, 0) << file;
    return found.as<fuse_entry_out>().nodeid;
  }

  std::string top, inside;
  std::unique_ptr<Folder> folder;
  std::uint64_t unique = 0;
};

TEST_F(FolderOfAGuest, FilesAreTheNodesAndTheGuestsAtOnce) {
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("a")).error, ENOENT);
  Answer made = create(FUSE_ROOT_ID, "a");
  ASSERT_EQ(made.error, 0);
  EXPECT_EQ(write(handle_of(made), 0, "from the guest").as<fuse_write_out>().size, 14U);
  EXPECT_EQ(Files::system().read(inside + "/a").value_or(""), "from the guest");
  struct stat info {};
  ASSERT_EQ(::stat((inside + "/a").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 1234U) << "the user who made it in the guest";
  EXPECT_EQ(info.st_gid, 99U);
  ASSERT_TRUE(replace_file(inside + "/b", "from the node"));
  Answer opened = ask(FUSE_OPEN, node("b"), raw(fuse_open_in{O_RDONLY, 0}));
  EXPECT_EQ(read(opened.as<fuse_open_out>().fh, 5, 100).content, "the node");
  EXPECT_EQ(write(opened.as<fuse_open_out>().fh, 0, "no").error, EBADF)
      << "it was opened for reading";
  EXPECT_EQ(ask(FUSE_GETATTR, node("b"), raw(fuse_getattr_in{})).as<fuse_attr_out>().attr.size,
            13U);
  EXPECT_EQ(
      ask(FUSE_RELEASE, 0, raw(fuse_release_in{opened.as<fuse_open_out>().fh, 0, 0, 0})).error, 0);
  EXPECT_EQ(read(opened.as<fuse_open_out>().fh, 0, 1).error, EBADF);
}

TEST_F(FolderOfAGuest, NamesComeGoAndMove) {
  std::uint64_t d = ask(FUSE_MKDIR, FUSE_ROOT_ID, raw(fuse_mkdir_in{0750, 0}) + name("d"))
                        .as<fuse_entry_out>()
                        .nodeid;
  ASSERT_EQ(create(d, "x").error, 0);
  EXPECT_EQ(ask(FUSE_LINK, FUSE_ROOT_ID, raw(fuse_link_in{node("x", d)}) + name("y"))
                .as<fuse_entry_out>()
                .attr.nlink,
            2U);
  EXPECT_EQ(node("y"), node("x", d)) << "one file, one node";
  EXPECT_EQ(ask(FUSE_SYMLINK, d, name("l") + name("../y")).error, 0);
  EXPECT_EQ(ask(FUSE_READLINK, node("l", d)).content, "../y");
  EXPECT_EQ(ask(FUSE_RENAME2, d,
                raw(fuse_rename2_in{FUSE_ROOT_ID, RENAME_NOREPLACE, 0}) + name("x") + name("y"))
                .error,
            EEXIST);
  EXPECT_EQ(ask(FUSE_RENAME, d, raw(fuse_rename_in{FUSE_ROOT_ID}) + name("x") + name("z")).error,
            0);
  EXPECT_EQ(::access((inside + "/z").c_str(), F_OK), 0);
  EXPECT_EQ(ask(FUSE_RMDIR, FUSE_ROOT_ID, name("d")).error, ENOTEMPTY);
  EXPECT_EQ(ask(FUSE_UNLINK, d, name("l")).error, 0);
  EXPECT_EQ(ask(FUSE_RMDIR, FUSE_ROOT_ID, name("d")).error, 0);
  EXPECT_EQ(ask(FUSE_SYNCFS, FUSE_ROOT_ID).error, 0);
  EXPECT_GT(ask(FUSE_STATFS, FUSE_ROOT_ID).as<fuse_statfs_out>().st.blocks, 0U);
}

TEST_F(FolderOfAGuest, AListingIsWholeHoweverLittleRoomThereIs) {
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 50; ++i) {
    std::string file = std::string(static_cast<std::size_t>(i) + 1, 'n') + std::to_string(i);
    ASSERT_TRUE(replace_file(inside + "/" + file, ""));
    expected.insert(file);
  }
  std::uint64_t handle =
      ask(FUSE_OPENDIR, FUSE_ROOT_ID, raw(fuse_open_in{})).as<fuse_open_out>().fh;
  std::set<std::string> found;
  std::uint64_t next = 0;
  for (std::string content = "first"; !content.empty();) {
    content = read(handle, next, 100, FUSE_READDIR, 100).content;
    for (std::size_t at = 0; at < content.size();) {
      fuse_dirent entry{};
      std::memcpy(&entry, content.data() + at, FUSE_NAME_OFFSET);
      EXPECT_TRUE(found.insert(content.substr(at + FUSE_NAME_OFFSET, entry.namelen)).second);
      next = entry.off;
      at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
    }
  }
  EXPECT_EQ(found, expected);
}

TEST_F(FolderOfAGuest, AttributesChangeButNoFileRunsAsItsOwner) {
  Answer made = create(FUSE_ROOT_ID, "a", O_RDWR, S_IFDIR | 04755);
  std::uint64_t a = made.as<fuse_entry_out>().nodeid;
  EXPECT_EQ(made.as<fuse_entry_out>().attr.mode & 07777U, 0755U);
  EXPECT_EQ(write(handle_of(made), 0, "0123456789").error, 0);
  fuse_setattr_in in{};
  in.valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_UID;
  in.mode = 06711;
  in.size = 4;
  in.mtime = 1'000'000'000;
  in.uid = 77;
  auto out = ask(FUSE_SETATTR, a, raw(in)).as<fuse_attr_out>().attr;
  EXPECT_EQ(out.mode & 07777U, 0711U);
  EXPECT_EQ(out.size, 4U);
  EXPECT_EQ(out.mtime, 1'000'000'000U);
  EXPECT_EQ(out.uid, 77U);
  EXPECT_EQ(
      ask(FUSE_MKNOD, FUSE_ROOT_ID, raw(fuse_mknod_in{S_IFCHR | 0666, 0x103, 0, 0}) + name("null"))
          .error,
      EPERM);
  EXPECT_EQ(ask(FUSE_MKNOD, FUSE_ROOT_ID, raw(fuse_mknod_in{S_IFREG | 06777, 0, 0, 0}) + name("r"))
                    .as<fuse_entry_out>()
                    .attr.mode &
                07777U,
            0777U);
}

TEST_F(FolderOfAGuest, NothingOutsideOfItCanBeNamed) {
  for (const std::string& bad :
       {std::string(".."), std::string("."), std::string(""), std::string("../outside"),
        std::string("/etc/passwd"), std::string(1100, 'x')})
    for (std::uint32_t operation : {FUSE_LOOKUP, FUSE_UNLINK, FUSE_RMDIR})
      EXPECT_EQ(ask(operation, FUSE_ROOT_ID, name(bad)).error, EINVAL);
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name(std::string(300, 'x'))).error, ENAMETOOLONG);
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, "unended").error, EINVAL);
  EXPECT_EQ(create(FUSE_ROOT_ID, "../new").error, EINVAL);
  EXPECT_EQ(
      ask(FUSE_RENAME, FUSE_ROOT_ID, raw(fuse_rename_in{FUSE_ROOT_ID}) + name("a") + name("../a"))
          .error,
      EINVAL);
  // Links are the guest's to follow: here they are things of their own, and nothing is written
  // through them.
  ASSERT_EQ(::symlink("../outside", (inside + "/link").c_str()), 0);
  EXPECT_EQ(ask(FUSE_OPEN, node("link"), raw(fuse_open_in{O_RDWR, 0})).error, EACCES);
  EXPECT_NE(create(FUSE_ROOT_ID, "link", O_WRONLY | O_TRUNC).error, 0);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  EXPECT_EQ(ask(FUSE_SETATTR, node("link"), raw(in)).error, EACCES);
  in.valid = FATTR_UID;
  in.uid = 5;
  EXPECT_EQ(ask(FUSE_SETATTR, node("link"), raw(in)).error, 0);
  struct stat info {};
  ASSERT_EQ(::stat((top + "/outside").c_str(), &info), 0);
  EXPECT_NE(info.st_uid, 5U) << "only the link itself";
  // What is no file or folder is not opened: it could wait for ever, or reach a device.
  ASSERT_EQ(::mkfifo((inside + "/pipe").c_str(), 0666), 0);
  EXPECT_EQ(ask(FUSE_OPEN, node("pipe"), raw(fuse_open_in{O_RDONLY, 0})).error, EACCES);
  EXPECT_EQ(create(FUSE_ROOT_ID, "pipe").error, EACCES);
}

TEST_F(FolderOfAGuest, WhatIsNotKnownOrTooShortIsAnErrorAndNoMore) {
  for (std::uint32_t operation = 0; operation < 60; ++operation) {
    if (operation == FUSE_INIT || operation == FUSE_DESTROY || operation == FUSE_STATFS ||
        operation == FUSE_FLUSH)
      continue;
    EXPECT_NE(ask(operation, 4711).error, 0) << operation;
    EXPECT_NE(ask(operation, 4711, std::string(200, '\xff')).error, 0) << operation;
  }
  DescriptorChain empty;
  EXPECT_EQ(folder->serve(empty), 0U);
  EXPECT_EQ(ask(FUSE_GETATTR, FUSE_ROOT_ID, raw(fuse_getattr_in{}), 3).content.size(), 3U)
      << "no more than there is room for";
  fuse_init_in old{};
  old.major = FUSE_KERNEL_VERSION;
  old.minor = 20;
  EXPECT_EQ(ask(FUSE_INIT, 0, raw(old)).error, EPROTO);
  old.minor = 31;
  EXPECT_EQ(ask(FUSE_INIT, 0, raw(old).substr(0, 16)).error, 0)
      << "as kernels before Linux 5.17 begin";
  EXPECT_EQ(ask(FUSE_INIT, 0, raw(old).substr(0, 15)).error, EINVAL);
}

TEST_F(FolderOfAGuest, WhatTheGuestForgetsIsClosed) {
  ASSERT_TRUE(replace_file(inside + "/a", ""));
  auto open_now = [] { return Files::system().list("/proc/self/fd").value_or({}).size(); };
  std::size_t before = open_now();
  std::uint64_t a = node("a");
  EXPECT_EQ(node("a"), a);
  EXPECT_EQ(open_now(), before + 1);
  EXPECT_EQ(ask(FUSE_FORGET, a, raw(fuse_forget_in{1})).error, -1) << "nobody waits for an answer";
  EXPECT_EQ(ask(FUSE_GETATTR, a, raw(fuse_getattr_in{})).error, 0) << "it was told twice";
  ask(FUSE_BATCH_FORGET, 0,
      raw(fuse_batch_forget_in{1000000, 0}) + raw(fuse_forget_one{a, 1}) +
          raw(fuse_forget_one{FUSE_ROOT_ID, 9}));
  EXPECT_EQ(ask(FUSE_GETATTR, a, raw(fuse_getattr_in{})).error, ESTALE);
  EXPECT_EQ(ask(FUSE_GETATTR, FUSE_ROOT_ID, raw(fuse_getattr_in{})).error, 0);
  EXPECT_EQ(open_now(), before);
  node("a");
  folder->reset();
  EXPECT_EQ(open_now(), before);
}

TEST_F(FolderOfAGuest, AGuestThatRemembersEverythingRunsOutOfWhatItMayHave) {
  folder = open_folder(inside, 100);
  int made = 0;
  while (made < 1000 && create(FUSE_ROOT_ID, "f" + std::to_string(made)).error == 0) ++made;
  EXPECT_EQ(made, 50) << "each is a node and an open file";
  EXPECT_EQ(create(FUSE_ROOT_ID, "one more").error, ENFILE);
  EXPECT_EQ(ask(FUSE_LINK, FUSE_ROOT_ID, raw(fuse_link_in{node("f0")}) + name("link")).error,
            ENFILE);
  EXPECT_NE(::access((inside + "/link").c_str(), F_OK), 0) << "nothing is left of what failed";
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("f1")).error, 0) << "what it knows it still finds";
}

TEST_F(FolderOfAGuest, AppendingIsAtTheEndButPagesGoBackToTheirPlaces) {
  std::uint64_t handle = handle_of(create(FUSE_ROOT_ID, "log", O_RDWR | O_APPEND));
  EXPECT_EQ(write(handle, 0, "0123456789").error, 0);
  fuse_write_in in{};
  in.fh = handle;
  in.size = 1;
  in.flags = O_RDWR | O_APPEND;
  EXPECT_EQ(ask(FUSE_WRITE, 0, raw(in) + "a").error, 0);
  in.offset = 3;
  in.write_flags = FUSE_WRITE_CACHE;
  EXPECT_EQ(ask(FUSE_WRITE, 0, raw(in) + "p").error, 0);
  EXPECT_EQ(Files::system().read(inside + "/log").value_or(""), "012p456789a");
}

// Inode numbers begin anew in each file system, so the guest has to know where one begins.
TEST_F(FolderOfAGuest, WhereAnotherFileSystemBeginsIsSaid) {
  folder = open_folder("/", 1000);
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("proc")).as<fuse_entry_out>().attr.flags,
            unsigned{FUSE_ATTR_SUBMOUNT});
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("proc")).as<fuse_entry_out>().generation, 0U)
      << "Linux 6.1 gives a folder that begins a mount no other one, and would take it for a new "
         "one";
  EXPECT_EQ(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("etc")).as<fuse_entry_out>().attr.flags, 0U);
  EXPECT_EQ(ask(FUSE_OPEN, node("version", node("proc")), raw(fuse_open_in{O_RDONLY, 0})).error,
            EACCES)
      << "a share that reaches procfs would reach the monitor's own memory";
  EXPECT_EQ(ask(FUSE_LOOKUP, node("proc"), name("self")).as<fuse_entry_out>().attr.flags, 0U);
}

// The same with a window, which a guest maps files at.
class WindowOfAGuest : public FolderOfAGuest {
 protected:
  static constexpr std::uint64_t size = 8 * mib, page = 4096;
  void SetUp() override {
    FolderOfAGuest::SetUp();
    auto made = DaxWindow::make(dax_at, size);
    ASSERT_TRUE(made);
    window = std::make_unique<DaxWindow>(std::move(*made));
    folder = open_folder(inside, 10000, window.get());
    auto out = begin();
    EXPECT_NE(out.flags & FUSE_MAP_ALIGNMENT, 0U);
    EXPECT_EQ(out.flags2, FUSE_HAS_INODE_DAX >> 32U);
    EXPECT_LE(1ULL << out.map_alignment, dax_unit);
  }
  int map(std::uint64_t of, std::uint64_t at, std::uint64_t length, bool writable = true,
          std::uint64_t offset = 0) {
    fuse_setupmapping_in in{};
    in.fh = ~0ULL;
    in.foffset = offset;
    in.len = length;
    in.moffset = at;
    in.flags = writable ? FUSE_SETUPMAPPING_FLAG_WRITE | FUSE_SETUPMAPPING_FLAG_READ
                        : FUSE_SETUPMAPPING_FLAG_READ;
    return ask(FUSE_SETUPMAPPING, of, raw(in)).error;
  }
  int unmap(std::uint64_t at, std::uint64_t length, std::uint32_t count = 1) {
    return ask(FUSE_REMOVEMAPPING, 0,
               raw(fuse_removemapping_in{count}) + raw(fuse_removemapping_one{at, length}))
        .error;
  }
  char* at(std::uint64_t place) const { return static_cast<char*>(window->host()) + place; }
  // As KVM asks on behalf of the guest: without a signal for who asks.
  [[nodiscard]] bool readable(std::uint64_t place) const {
    char one = 0;
    int ends[2];
    if (::pipe(ends) != 0) return false;
    Fd in(ends[0]), out(ends[1]);
    return ::write(out.get(), at(place), 1) == 1 && ::read(in.get(), &one, 1) == 1;
  }
  std::string path(const std::string& file) const { return inside + "/" + file; }
  void fill(const std::string& file, std::size_t bytes) const {
    ASSERT_TRUE(replace_file(path(file), std::string(bytes, 'x')));
  }
  std::unique_ptr<DaxWindow> window;
};

TEST_F(WindowOfAGuest, AMappedFileIsMemoryOfBothSides) {
  fill("shared", 3 * page);
  std::uint64_t shared = node("shared");
  EXPECT_NE(ask(FUSE_LOOKUP, FUSE_ROOT_ID, name("shared")).as<fuse_entry_out>().attr.flags &
                FUSE_ATTR_DAX,
            0U);
  EXPECT_EQ(ask(FUSE_GETATTR, FUSE_ROOT_ID, raw(fuse_getattr_in{})).as<fuse_attr_out>().attr.flags,
            0U)
      << "folders are not mapped";
  EXPECT_EQ(ask(FUSE_GETATTR, shared, raw(fuse_getattr_in{})).as<fuse_attr_out>().attr.blksize,
            page)
      << "Linux maps files whose blocks are pages";
  ASSERT_EQ(map(shared, dax_unit, dax_unit), 0);
  EXPECT_EQ(*at(dax_unit + page), 'x');
  *at(dax_unit + page) = 'g';
  EXPECT_EQ((*Files::system().read(path("shared"), 3 * page))[page], 'g');
  // Somewhere else, from the second page on, for reading.
  ASSERT_EQ(map(shared, 0, page, false, page), 0);
  EXPECT_EQ(*at(0), 'g');
  EXPECT_EQ(unmap(0, page), 0);
  EXPECT_FALSE(readable(0));
  EXPECT_TRUE(readable(dax_unit));
  begin();
  EXPECT_FALSE(readable(dax_unit)) << "another driver has begun, and has nothing mapped";
}

TEST_F(WindowOfAGuest, WhatIsBehindTheEndOfAFileIsMemoryUntilItGrows) {
  fill("short", page);
  std::uint64_t file = node("short");
  ASSERT_EQ(map(file, 0, dax_unit), 0);
  EXPECT_EQ(*at(page), '\0') << "no signal, and nothing of anybody";
  *at(page) = 'l';  // lost: the file has no such page
  ASSERT_EQ(::truncate(path("short").c_str(), 2 * page), 0);
  EXPECT_EQ(ask(FUSE_GETATTR, file, raw(fuse_getattr_in{})).as<fuse_attr_out>().attr.size,
            2 * page);
  EXPECT_EQ(*at(page), '\0') << "before the guest learns of it the page is the file's";
  *at(page) = 'k';
  EXPECT_EQ((*Files::system().read(path("short"), 2 * page))[page], 'k');
  // What the guest makes longer itself it does not ask for again.
  fuse_setattr_in longer{};
  longer.valid = FATTR_SIZE;
  longer.size = 3 * page;
  EXPECT_EQ(ask(FUSE_SETATTR, file, raw(longer)).error, 0);
  *at(2 * page) = 's';
  Answer opened = ask(FUSE_OPEN, file, raw(fuse_open_in{O_RDWR, 0}));
  EXPECT_EQ(write(opened.as<fuse_open_out>().fh, 3 * page, "w").error, 0);
  EXPECT_EQ(*at(3 * page), 'w');
  EXPECT_EQ((*Files::system().read(path("short"), 4 * page))[2 * page], 's');
}

TEST_F(WindowOfAGuest, AFileThatTheNodeCutsUnderAMappingEndsNobody) {
  fill("cut", 2 * page);
  ASSERT_EQ(map(node("cut"), 0, dax_unit), 0);
  ASSERT_EQ(::truncate(path("cut").c_str(), 0), 0);
  EXPECT_FALSE(readable(page)) << "KVM is told EFAULT, and the monitor asks:";
  EXPECT_TRUE(window->follow_sizes());
  EXPECT_TRUE(readable(0));
  EXPECT_EQ(*at(page), '\0');
  EXPECT_FALSE(window->follow_sizes()) << "everything is right";
  *at(page) = 'l';
  ASSERT_EQ(::truncate(path("cut").c_str(), 2 * page), 0);
  node("cut");  // the guest looks at it again
  EXPECT_EQ(*at(page), '\0');
}

TEST_F(WindowOfAGuest, AGuestThatLiesAboutPlacesIsRefused) {
  fill("f", 2 * page);
  std::uint64_t f = node("f");
  struct Lie {
    std::uint64_t at, length, offset;
  };
  for (const Lie& lie : {Lie{size, page, 0}, Lie{0, size + page, 0}, Lie{~0ULL - page + 1, page, 0},
                         Lie{page, ~0ULL - page + 1, 0}, Lie{0, 0, 0}, Lie{1, page, 0},
                         Lie{0, page - 1, 0}, Lie{0, page, 1}, Lie{0, page, 1ULL << 63U}})
    EXPECT_EQ(map(f, lie.at, lie.length, true, lie.offset), EINVAL) << lie.at << " " << lie.length;
  EXPECT_EQ(map(f, 0, page, true, 1ULL << 40U), 0) << "nothing of the file, but no harm";
  EXPECT_EQ(*at(0), '\0');
  EXPECT_EQ(map(FUSE_ROOT_ID, 0, page), ESTALE);
  EXPECT_EQ(map(999, 0, page), ESTALE);
  ASSERT_EQ(::mkdir(path("d").c_str(), 0755), 0);
  EXPECT_EQ(map(node("d"), 0, page), EINVAL);
  ASSERT_EQ(::symlink("../outside", path("l").c_str()), 0);
  EXPECT_EQ(map(node("l"), 0, page), EINVAL);
  EXPECT_EQ(unmap(size, page), EINVAL);
  EXPECT_EQ(unmap(0, ~0ULL - page + 1), EINVAL);
  EXPECT_EQ(unmap(0, page, 1000), EINVAL) << "more than it says";
  EXPECT_EQ(ask(FUSE_SETUPMAPPING, f, "short").error, EINVAL);
  // Over others, of other sizes: the last one counts, and nothing of the older ones is left.
  EXPECT_EQ(map(f, 0, 4 * page), 0);
  EXPECT_EQ(map(f, 2 * page, 4 * page), 0);
  EXPECT_FALSE(readable(0));
  EXPECT_EQ(*at(2 * page), 'x');
  auto open_now = [] { return Files::system().list("/proc/self/fd").value_or({}).size(); };
  std::size_t before = open_now();
  for (int i = 0; i < 10000; ++i) (void)map(f, static_cast<std::uint64_t>(i) % 2000 * page, page);
  EXPECT_LT(open_now(), before + 2010);
  folder->reset();
  EXPECT_LT(open_now(), before) << "nothing that was mapped stays open";
}

TEST_F(WindowOfAGuest, MappingsCountAmongWhatAGuestMayHave) {
  fill("f", page);
  folder = open_folder(inside, 10, window.get());
  begin();
  std::uint64_t f = node("f"), mapped = 0;
  while (mapped < 100 && map(f, mapped * page, page) == 0) ++mapped;
  EXPECT_EQ(mapped, 9U) << "and the file itself";
  EXPECT_EQ(map(f, 0, page), ENFILE);
  EXPECT_EQ(unmap(0, page), 0);
  EXPECT_EQ(map(f, 0, page), 0);
}

TEST_F(WindowOfAGuest, AFolderForReadingIsMappedForReading) {
  fill("f", page);
  window = std::make_unique<DaxWindow>(std::move(*DaxWindow::make(dax_at, size)));
  ASSERT_EQ(::chmod(path("f").c_str(), 0444), 0);
  folder = open_folder(inside, 100, window.get());
  begin();
  ASSERT_EQ(map(node("f"), 0, page, false), 0);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  Fd in(ends[0]), out(ends[1]);
  ASSERT_EQ(::write(out.get(), "w", 1), 1);
  EXPECT_EQ(::read(in.get(), at(0), 1), -1) << "not even the monitor may write there";
}

}  // namespace
}  // namespace hobbes::vmm

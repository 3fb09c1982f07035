#include "nis/nis.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "core/file.h"
#include "core/identity.h"
#include "nis/mirror.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

class Folder {
 public:
  Folder() {
    char name[] = "/dev/shm/hobbes-test.XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() { (void)remove_tree(path_); }
  std::string operator/(const char* name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

const MirrorShape small{1U << 8U, 1U << 12U, 16, sizeof(hobbes_record), HOBBES_NIS_MINOR};

hobbes_record record(std::uint64_t id, const std::string& name, std::uint32_t state = 1) {
  hobbes_record r{};
  r.id = id;
  r.type = HOBBES_ENCLAVE;
  r.size = sizeof r;
  r.state = state;
  set_name(r, name);
  return r;
}

// Every byte of the body says the same number: a torn record shows two.
hobbes_record patterned(std::uint64_t id, std::uint8_t number) {
  hobbes_record r = record(id, "stress", number);
  std::fill(std::begin(r.body.bytes), std::end(r.body.bytes), number);
  return r;
}
bool whole(const hobbes_record& r) {
  for (std::uint8_t byte : r.body.bytes)
    if (byte != r.body.bytes[0]) return false;
  return r.state == r.body.bytes[0];
}

TEST(Mirror, RecordsAreFoundByIdAndNameAndInOrder) {
  Folder folder;
  auto mirror = Mirror::create(folder / "nis", 0644, small);
  ASSERT_TRUE(mirror);
  for (std::uint64_t i = 0; i < 10; ++i)
    ASSERT_TRUE(mirror->publish(record(1ULL << 32U | i, "e" + std::to_string(i))));
  auto reader = NisReader::open(folder / "nis");
  ASSERT_TRUE(reader);
  hobbes_record found;
  EXPECT_EQ((*reader)->by_id(1ULL << 32U | 3U, &found), NisView::Status::good);
  EXPECT_STREQ(found.name, "e3");
  EXPECT_EQ((*reader)->by_id(2ULL << 32U | 3U, &found), NisView::Status::absent)
      << "another generation of the slot";
  EXPECT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 0, "e7", &found), NisView::Status::good);
  EXPECT_EQ((*reader)->by_name(HOBBES_SEGMENT, 0, "e7", &found), NisView::Status::absent);
  EXPECT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 1, "e7", &found), NisView::Status::absent);
  EXPECT_EQ((*reader)->all(HOBBES_ENCLAVE).size(), 10U);
  mirror->erase(1ULL << 32U | 7U);
  EXPECT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 0, "e7", &found), NisView::Status::absent);
  EXPECT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 0, "e8", &found), NisView::Status::good)
      << "deletion must not cut a probe chain";
}

TEST(Mirror, AHundredThousandRecordsGrowUnderAMappedReader) {
  Folder folder;
  auto mirror = Mirror::create(folder / "nis", 0644);
  ASSERT_TRUE(mirror);
  auto reader = NisReader::open(folder / "nis");
  ASSERT_TRUE(reader);
  const std::uint64_t count = 100'000;
  for (std::uint64_t i = 0; i < count; ++i)
    ASSERT_TRUE(mirror->publish(record(1ULL << 32U | i, std::to_string(i))));
  hobbes_record found;
  for (std::uint64_t i = 0; i < count; i += 997) {
    ASSERT_EQ((*reader)->by_id(1ULL << 32U | i, &found), NisView::Status::good) << i;
    ASSERT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 0, std::to_string(i).c_str(), &found),
              NisView::Status::good)
        << i;
  }
  EXPECT_EQ((*reader)->all(HOBBES_ENCLAVE).size(), count);
}

TEST(Mirror, ReadersNeverSeeATornRecord) {
  Folder folder;
  auto mirror = Mirror::create(folder / "nis", 0644, small);
  ASSERT_TRUE(mirror);
  ASSERT_TRUE(mirror->publish(patterned(1ULL << 32U, 0)));
  auto reader = NisReader::open(folder / "nis");
  ASSERT_TRUE(reader);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> torn{0}, reads{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      hobbes_record seen;
      while (!stop) {
        if ((*reader)->by_id(1ULL << 32U, &seen) != NisView::Status::good || !whole(seen)) ++torn;
        ++reads;
      }
    });
  for (int round = 0; round < 20000; ++round)
    ASSERT_TRUE(mirror->publish(patterned(1ULL << 32U, static_cast<std::uint8_t>(round))));
  while (reads < 1000) std::this_thread::yield();
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(torn, 0U);
}

// The writer is killed at arbitrary instructions; what it leaves must be readable at once and by
// the next writer.
TEST(Mirror, AWriterKilledAtAnyInstructionLeavesAReadableMirror) {
  Folder folder;
  ASSERT_TRUE(Mirror::create(folder / "nis", 0644, small)->publish(patterned(1ULL << 32U, 0)));
  for (int round = 0; round < 60; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    pid_t writer = ::fork();
    if (writer == 0) {
      auto mirror = Mirror::open(folder / "nis", 0644, small);
      if (!mirror) ::_exit(1);
      (void)!::write(ready[1], "r", 1);
      for (std::uint32_t i = 0;; ++i) {
        (void)mirror->publish(patterned(1ULL << 32U, static_cast<std::uint8_t>(i)));
        (void)mirror->publish(record(static_cast<std::uint64_t>(i + 2) << 32U | (1 + i % 64),
                                     "n" + std::to_string(i % 97)));
        if (i % 3 == 0) mirror->erase(static_cast<std::uint64_t>(i + 2) << 32U | (1 + i % 64));
      }
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
    ::usleep(static_cast<useconds_t>(100 + (round * 37) % 900));
    ::kill(writer, SIGKILL);
    ::waitpid(writer, nullptr, 0);
    auto reader = NisReader::open(folder / "nis");
    ASSERT_TRUE(reader);
    hobbes_record seen;
    ASSERT_EQ((*reader)->by_id(1ULL << 32U, &seen), NisView::Status::good);
    EXPECT_TRUE(whole(seen));
    for (const hobbes_record& one : (*reader)->all(HOBBES_FREE)) {
      hobbes_record again;
      EXPECT_EQ((*reader)->by_id(one.id, &again), NisView::Status::good);
    }
  }
}

TEST(Mirror, AReaderWaitsForAChangeAndCanResume) {
  Folder folder;
  auto mirror = Mirror::create(folder / "nis", 0644, small);
  ASSERT_TRUE(mirror);
  auto reader = NisReader::open(folder / "nis");
  ASSERT_TRUE(reader);
  std::uint64_t sequence = 0;
  hobbes_change change;
  EXPECT_EQ((*reader)->wait(&sequence, &change, 20), NisView::Status::absent);
  std::thread writer([&] {
    ::usleep(30000);
    (void)mirror->publish(record(1ULL << 32U, "late", HOBBES_RUNNING));
  });
  EXPECT_EQ((*reader)->wait(&sequence, &change, 5000), NisView::Status::good);
  writer.join();
  EXPECT_EQ(sequence, 1U);
  EXPECT_EQ(change.kind, HOBBES_APPEARED);
  for (std::uint32_t i = 0; i < 300; ++i)
    ASSERT_TRUE(mirror->publish(record(1ULL << 32U, "late", i + 10)));
  EXPECT_EQ((*reader)->wait(&sequence, &change, 0), NisView::Status::stale)
      << "the log of 256 has been overrun";
}

TEST(Mirror, AnOlderReaderReadsANewerMinorVersion) {
  Folder folder;
  MirrorShape newer = small;
  newer.minor = HOBBES_NIS_MINOR + 1;
  newer.record_size = sizeof(hobbes_record) + 64;  // fields added at the end
  auto mirror = Mirror::create(folder / "nis", 0644, newer);
  ASSERT_TRUE(mirror);
  ASSERT_TRUE(mirror->publish(record(1ULL << 32U | 5U, "future")));
  auto reader = NisReader::open(folder / "nis");
  ASSERT_TRUE(reader) << reader.error().text();
  hobbes_record found;
  EXPECT_EQ((*reader)->by_name(HOBBES_ENCLAVE, 0, "future", &found), NisView::Status::good);
}

TEST(Mirror, WhatIsNoMirrorIsRefusedAndReplaced) {
  Folder folder;
  for (const std::string& junk :
       {std::string(), std::string(100, 'x'), std::string(8192, '\0'), std::string(8192, '\xff')}) {
    ASSERT_TRUE(replace_file(folder / "nis", junk));
    EXPECT_EQ(NisReader::open(folder / "nis").error().code, Code::corrupt);
    EXPECT_TRUE(Mirror::open(folder / "nis", 0644, small));
    EXPECT_TRUE(NisReader::open(folder / "nis"));
  }
  EXPECT_EQ(NisReader::open(folder / "none").error().code, Code::not_found);
}

TEST(Mirror, HeadersThatPointOutsideAreRefused) {
  Folder folder;
  for (std::size_t field = 0; field < sizeof(hobbes_nis_header) / 8; ++field) {
    ASSERT_TRUE(Mirror::create(folder / "nis", 0644, small));
    int fd = ::open((folder / "nis").c_str(), O_RDWR);
    std::uint64_t evil = 0xffffffffffffff00U;
    ASSERT_EQ(::pwrite(fd, &evil, 8, static_cast<off_t>(field * 8)), 8);
    ::close(fd);
    auto reader = NisReader::open(folder / "nis");
    if (!reader) continue;  // refused
    hobbes_record r;        // or harmless: it must only not crash
    std::uint64_t cursor = 0;
    (void)(*reader)->next(HOBBES_FREE, &cursor, &r);
    (void)(*reader)->by_name(HOBBES_ENCLAVE, 0, "x", &r);
    hobbes_change c;
    std::uint64_t sequence = 5;
    (void)(*reader)->wait(&sequence, &c, 0);
  }
}

TEST(Nis, TransitionsSurviveTheWriterAndIdsNeverComeAgain) {
  Folder folder;
  std::uint64_t first = 0;
  {
    auto nis = Nis::open(folder / "state", folder / "run", small);
    ASSERT_TRUE(nis) << nis.error().text();
    hobbes_record r = (*nis)->make(HOBBES_ENCLAVE, 0, "kept");
    first = r.id;
    Transition t;
    t.put(r);
    t.put_document("volatile/x", {{"a", 1}});
    ASSERT_TRUE((*nis)->commit(t));
  }
  auto nis = Nis::open(folder / "state", folder / "run", small);
  ASSERT_TRUE(nis);
  ASSERT_NE((*nis)->by_id(first), nullptr);
  EXPECT_EQ((*nis)->by_name(HOBBES_ENCLAVE, 0, "kept")->id, first);
  EXPECT_EQ((*(*nis)->document("volatile/x"))["a"], 1);
  Transition t;
  t.erase(first);
  ASSERT_TRUE((*nis)->commit(t));
  hobbes_record again = (*nis)->make(HOBBES_ENCLAVE, 0, "kept");
  EXPECT_NE(again.id, first);
}

TEST(Nis, TwoWritersAreRefused) {
  Folder folder;
  auto nis = Nis::open(folder / "state", folder / "run", small);
  ASSERT_TRUE(nis);
  auto second = Nis::open(folder / "state", folder / "run2", small);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::busy) << second.error().text();
}

TEST(Nis, ACorruptDatabaseIsSetAsideAndRebuiltFromTheMirror) {
  Folder folder;
  std::uint64_t id = 0;
  {
    auto nis = Nis::open(folder / "state", folder / "run", small);
    ASSERT_TRUE(nis);
    hobbes_record r = (*nis)->make(HOBBES_ENCLAVE, 0, "survivor");
    id = r.id;
    Transition t;
    t.put(r);
    ASSERT_TRUE((*nis)->commit(t));
  }
  for (const std::string& name : *Files::system().list(folder / "state/nis.db"))
    if (name.rfind("MANIFEST", 0) == 0) {
      ASSERT_TRUE(replace_file((folder / "state/nis.db/") + name, "garbage"));
    }
  auto nis = Nis::open(folder / "state", folder / "run", small);
  ASSERT_TRUE(nis) << nis.error().text();
  EXPECT_FALSE((*nis)->notes().empty());
  ASSERT_NE((*nis)->by_id(id), nullptr);
}

TEST(Nis, AStateDirectoryThatCannotBeWrittenMeansDiskless) {
  Folder folder;
  ASSERT_TRUE(replace_file(folder / "state", "a file where the folder should be"));
  auto nis = Nis::open(folder / "state", folder / "run", small);
  ASSERT_TRUE(nis) << nis.error().text();
  ASSERT_FALSE((*nis)->notes().empty());
  EXPECT_NE((*nis)->notes()[0].find("will not outlive a reboot"), std::string::npos);
}

TEST(Nis, ADeletedOrCutMirrorIsRebuiltAndReadersAreTold) {
  Folder folder;
  auto nis = Nis::open(folder / "state", folder / "run", small);
  ASSERT_TRUE(nis);
  Transition t;
  t.put((*nis)->make(HOBBES_ENCLAVE, 0, "here"));
  ASSERT_TRUE((*nis)->commit(t));
  auto reader = NisReader::open(folder / "run/nis");
  ASSERT_TRUE(reader);
  ASSERT_EQ(::unlink((folder / "run/nis").c_str()), 0);
  (*nis)->beat();
  EXPECT_TRUE((*reader)->replaced());
  auto fresh = NisReader::open(folder / "run/nis");
  ASSERT_TRUE(fresh);
  EXPECT_EQ((*fresh)->all(HOBBES_ENCLAVE).size(), 1U);
  EXPECT_GE((*fresh)->sequence(), (*reader)->sequence()) << "sequence numbers go on";
  ASSERT_EQ(::truncate((folder / "run/nis").c_str(), 4096), 0);
  EXPECT_EQ(NisReader::open(folder / "run/nis").error().code, Code::corrupt);
  (*nis)->beat();
  EXPECT_TRUE(NisReader::open(folder / "run/nis"));
}

}  // namespace
}  // namespace hobbes

#include "hobbesd/segment_table.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/manager_part.h"

namespace hobbes::test {
namespace {

class SegmentTableTest : public ManagerPart {
 protected:
  // A segment of this process's, made by the caller.
  Result<Reply> make(Session& caller, const std::string& name, const Json& more = {}) {
    memory_.emplace_back(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(memory_.back().get(), 8192), 0);
    EXPECT_EQ(::fcntl(memory_.back().get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    Json request = {{"name", name}, {"fd", memory_.back().get()}, {"mode", 0600}};
    request.merge_patch(more.is_null() ? Json::object() : more);
    return segments.make(caller, request);
  }
  const hobbes_record* record(const std::string& name, uid_t uid = 0) const {
    return nis->by_name(HOBBES_SEGMENT, uid, name);
  }
  void end(pid_t pid) {
    Transition transition;
    segments.process_ended(pid, transition);
    ASSERT_TRUE(nis->commit(transition));
  }

  Policies policies;
  std::vector<pid_t> watched;
  NameTable names{*nis, policies, [](pid_t) {}};
  DoorbellTable bells{*nis};
  SegmentTable segments{*nis, policies, names, bells,
                        [this](pid_t pid) { watched.push_back(pid); }};

 private:
  std::vector<Fd> memory_;
};

TEST_F(SegmentTableTest, ASegmentGoesWithTheProcessThatMadeIt) {
  Session caller = session(0);
  ASSERT_TRUE(make(caller, "fresh-one"));
  EXPECT_EQ(watched, std::vector<pid_t>{::getpid()});
  ASSERT_NE(record("fresh-one"), nullptr);
  EXPECT_EQ(record("fresh-one")->body.segment.size, 8192U);
  end(::getpid() + 1);
  EXPECT_NE(record("fresh-one"), nullptr) << "another process";
  end(::getpid());
  EXPECT_EQ(record("fresh-one"), nullptr);
}

TEST_F(SegmentTableTest, AttachmentsAreCountedAndEndWithTheirProcess) {
  Session caller = session(0);
  ASSERT_TRUE(make(caller, "counted"));
  auto attached = segments.attach(caller, {{"name", "counted"}, {"access", "ro"}});
  ASSERT_TRUE(attached) << attached.error().text();
  ASSERT_EQ(attached->fds.size(), 1U);
  EXPECT_EQ(record("counted")->body.segment.attachments, 1U);
  EXPECT_EQ(::fcntl(attached->fds[0].get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  ASSERT_TRUE(segments.detach(caller, {{"attachment", attached->body["attachment"]}}));
  EXPECT_EQ(record("counted")->body.segment.attachments, 0U);
  EXPECT_EQ(segments.detach(caller, {{"attachment", attached->body["attachment"]}}).error().code,
            Code::not_found);
  // Of another process, which ends.
  Session child = session(0);
  child.peer.pid = ::fork();
  if (child.peer.pid == 0) {
    ::pause();
    ::_exit(0);
  }
  ASSERT_TRUE(segments.attach(child, {{"name", "counted"}}));
  EXPECT_EQ(record("counted")->body.segment.attachments, 1U);
  end(child.peer.pid);
  EXPECT_EQ(record("counted")->body.segment.attachments, 0U);
  ::kill(child.peer.pid, SIGKILL);
  ::waitpid(child.peer.pid, nullptr, 0);
}

TEST_F(SegmentTableTest, ADoorbellIsGoneWithItsAttachment) {
  Session caller = session(0);
  ASSERT_TRUE(make(caller, "rung"));
  auto attached = segments.attach(caller, {{"name", "rung"}});
  ASSERT_TRUE(attached);
  const Json attachment = {{"attachment", attached->body["attachment"]}};
  ASSERT_TRUE(bells.listen(caller, attachment));
  EXPECT_EQ(record("rung")->body.segment.listeners, 1U);
  // Another process is given an end to ring; the listener's own is left out.
  Session other = session(0);
  other.peer.pid = ::getppid();
  auto ringer = segments.attach(other, {{"name", "rung"}});
  ASSERT_TRUE(ringer);
  const Json its = {{"attachment", ringer->body["attachment"]}};
  auto ends = bells.listeners(other, its);
  ASSERT_TRUE(ends);
  EXPECT_EQ(ends->fds.size(), 1U);
  EXPECT_EQ(bells.listeners(caller, attachment)->fds.size(), 0U);
  EXPECT_EQ(bells.listen(caller, attachment).error().code, Code::exists);
  ASSERT_TRUE(segments.detach(caller, attachment));
  EXPECT_EQ(record("rung")->body.segment.listeners, 0U);
  EXPECT_EQ(bells.listeners(caller, attachment).error().code, Code::not_found);
  EXPECT_EQ(bells.listeners(other, its)->fds.size(), 0U);
}

TEST_F(SegmentTableTest, PermissionsAreThoseOfTheMode) {
  Session owner = session(0), other = session(4711);
  ASSERT_TRUE(make(owner, "private"));
  EXPECT_EQ(segments.get(other, {{"name", "private"}, {"access", "ro"}}).error().code,
            Code::denied);
  ASSERT_TRUE(make(owner, "readable", {{"mode", 0644}}));
  EXPECT_TRUE(segments.get(other, {{"name", "readable"}, {"access", "ro"}}));
  EXPECT_EQ(segments.get(other, {{"name", "readable"}}).error().code, Code::denied);
  EXPECT_EQ(segments.remove(other, {{"name", "readable"}}).error().code, Code::denied);
  EXPECT_EQ(segments.get(owner, {{"name", "absent"}}).error().code, Code::not_found);
}

TEST_F(SegmentTableTest, AUsersSegmentsAndAttachmentsHaveLimits) {
  policies.users[4711].segments = 1;
  policies.users[4711].attachments = 1;
  Session user = session(4711);
  ASSERT_TRUE(make(user, "first"));
  EXPECT_EQ(make(user, "second").error().code, Code::exhausted);
  ASSERT_TRUE(segments.attach(user, {{"name", "first"}}));
  EXPECT_EQ(segments.attach(user, {{"name", "first"}}).error().code, Code::exhausted);
}

TEST_F(SegmentTableTest, NobodyWritesToASnapshot) {
  Session caller = session(0);
  auto source = make(caller, "source");
  ASSERT_TRUE(source);
  ASSERT_TRUE(make(caller, "instant", {{"snapshotOf", source->body["handle"]}}));
  EXPECT_EQ(segments.get(caller, {{"name", "instant"}}).error().code, Code::denied);
  EXPECT_TRUE(segments.get(caller, {{"name", "instant"}, {"access", "ro"}}));
}

}  // namespace
}  // namespace hobbes::test

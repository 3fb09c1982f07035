// What the tests of the manager's parts share: a store and a mirror in memory, and a caller.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>
#include <string>

#include "bundle/bundle.h"
#include "core/file.h"
#include "enclave/describe.h"
#include "hobbesd/enclave_document.h"
#include "hobbesd/leases.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes::test {

class ManagerPart : public ::testing::Test {
 protected:
  ManagerPart() {
    char name[] = "/dev/shm/hobbes-test.XXXXXX";
    folder_ = ::mkdtemp(name);
    const MirrorShape small{1U << 8U, 1U << 10U, 64, sizeof(hobbes_record), HOBBES_NIS_MINOR};
    auto opened = Nis::open(folder_ + "/state", folder_ + "/run", small);
    EXPECT_TRUE(opened) << opened.error().text();
    nis = std::move(*opened);
  }
  ~ManagerPart() override {
    nis.reset();
    (void)remove_tree(folder_);
  }

  // A running enclave of kind linux.
  hobbes_record enclave(const std::string& name, const std::string& cpus, uid_t uid = 0,
                        std::uint32_t flags = 0) const {
    hobbes_record record = nis->make(HOBBES_ENCLAVE, uid, name);
    record.uid = uid;
    record.state = HOBBES_RUNNING;
    record.body.enclave.kind = static_cast<std::uint32_t>(Kind::linux_);
    record.body.enclave.flags = flags;
    set_cpus(record.body.enclave.cpus, *CpuSet::parse(cpus));
    commit(record);
    return record;
  }
  void commit(const hobbes_record& record) const {
    Transition transition;
    transition.put(record);
    ASSERT_TRUE(nis->commit(transition));
  }
  void commit(const std::string& document, const Json& content) const {
    Transition transition;
    transition.put_document(document, content);
    ASSERT_TRUE(nis->commit(transition));
  }
  // This process, as if the kernel had named `uid`.
  static Session session(uid_t uid) {
    Session out;
    out.peer.uid = uid;
    out.peer.gid = uid;
    out.peer.pid = ::getpid();
    out.privileged = uid == 0;
    return out;
  }

  std::unique_ptr<Nis> nis;

 private:
  std::string folder_;
};

}  // namespace hobbes::test

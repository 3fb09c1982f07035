// The C API over the C++ libraries: no logic of its own, only translation of errors and ownership.
#include "hobbes.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "library_error.h"
#include "nis/reader.h"
#include "xemem/segment.h"
#include "xemem/snapshot.h"

struct hobbes_nis {
  std::unique_ptr<hobbes::NisReader> reader;
};

namespace {

using hobbes::failed;

// What this process has open. Never destroyed: exit handlers of the program may still use its
// segments.
struct Open {
  std::mutex lock;
  std::map<hobbes_segid, hobbes::Segment> made;
  std::map<hobbes_apid, std::shared_ptr<hobbes::SegmentAccess>> accesses;
  struct Mapping {
    std::size_t size;
    // Of one that may be written: others are to know of the writer as long as it is mapped.
    std::shared_ptr<hobbes::SegmentAccess> writes;
  };
  std::map<void*, Mapping> mappings;
  hobbes_apid last_access = 0;
};

Open& opened() {
  static auto* open = new Open;
  return *open;
}

// Until it is detached or the process ends.
hobbes_segid keep(hobbes::Segment made) {
  const auto id = static_cast<hobbes_segid>(made.handle());
  Open& open = opened();
  std::lock_guard guard(open.lock);
  open.made.emplace(id, std::move(made));
  return id;
}

// What `use` makes of an access of this process, with the lock held; 0 or a negative errno value
// for an unknown one.
template <class Use>
int with_access(hobbes_apid access, const std::string& attempt, Use use) {
  Open& open = opened();
  std::lock_guard guard(open.lock);
  auto at = open.accesses.find(access);
  if (at == open.accesses.end())
    return failed({hobbes::Code::invalid, attempt, "the access id is unknown",
                   "use one from hobbes_segment_get"});
  return use(open, at);
}

// Begins an operation of hobbesd and waits for its end. `exit_status`: filled with the program's
// when hobbes-run reports only that.
int operate(const std::string& verb, const std::string& id, hobbes::Json request,
            int* exit_status = nullptr) {
  auto client = hobbes::Client::connect();
  if (!client) return failed(client.error());
  request["verb"] = verb;
  request["id"] = id;
  auto begun = client->call("operation.begin", std::move(request));
  if (!begun) return failed(begun.error());
  std::string name = hobbes::text_at(begun->body, "operation");
  for (unsigned wait_us = 500;; wait_us = std::min(wait_us * 2, 50'000U)) {
    auto now = client->call("operation.get", {{"operation", name}});
    if (!now) return failed(now.error());
    std::string state = hobbes::text_at(now->body, "state");
    if (state == "succeeded") return 0;
    if (state == "failed") {
      bool own = exit_status != nullptr && hobbes::text_at(now->body["error"], "attempt") ==
                                               verb;  // nothing but a status was said
      if (own) *exit_status = static_cast<int>(hobbes::number_at(now->body, "exitCode"));
      return own ? 0 : failed(hobbes::error_from(now->body["error"]));
    }
    ::usleep(wait_us);
  }
}

int number_of(hobbes::NisReader::Status status, const char* attempt) {
  switch (status) {
    case hobbes::NisReader::Status::good:
      return 0;
    case hobbes::NisReader::Status::absent:
      (void)failed({hobbes::Code::not_found, attempt, "there is none", ""});
      return -ENOENT;
    default:
      (void)failed({hobbes::Code::corrupt, attempt, "the mirror is not sound", "open it again"});
      return -EBADMSG;
  }
}

}  // namespace

extern "C" {

hobbes_nis* hobbes_nis_open(const char* path) {
  auto reader = hobbes::NisReader::open(path != nullptr ? path : hobbes::mirror_path());
  if (!reader) {
    failed(reader.error());
    return nullptr;
  }
  return new hobbes_nis{std::move(*reader)};
}

void hobbes_nis_close(hobbes_nis* nis) { delete nis; }

int hobbes_nis_by_id(hobbes_nis* nis, uint64_t id, struct hobbes_record* out) {
  return number_of(nis->reader->by_id(id, out), "read a record");
}

int hobbes_nis_by_name(hobbes_nis* nis, enum hobbes_record_type type, uint64_t scope,
                       const char* name, struct hobbes_record* out) {
  return number_of(nis->reader->by_name(static_cast<std::uint16_t>(type), scope, name, out),
                   "find a record");
}

int hobbes_nis_next(hobbes_nis* nis, enum hobbes_record_type type, uint64_t* cursor,
                    struct hobbes_record* out) {
  return number_of(nis->reader->next(static_cast<std::uint16_t>(type), cursor, out),
                   "read the next record");
}

uint64_t hobbes_nis_sequence(hobbes_nis* nis) { return nis->reader->sequence(); }

int hobbes_nis_wait(hobbes_nis* nis, uint64_t* sequence, struct hobbes_change* out,
                    int timeout_ms) {
  switch (nis->reader->wait(sequence, out, timeout_ms)) {
    case hobbes::NisReader::Status::good:
      return 0;
    case hobbes::NisReader::Status::absent:
      (void)failed({hobbes::Code::timeout, "wait for a change", "none has come in time", ""});
      return -ETIMEDOUT;
    default:
      if (nis->reader->replaced()) {
        (void)failed({hobbes::Code::busy, "wait for a change", "hobbesd has made the mirror anew",
                      "open it again and read everything"});
        return -ESTALE;
      }
      (void)failed({hobbes::Code::exhausted, "wait for a change", "changes were lost",
                    "read everything again"});
      return -EOVERFLOW;
  }
}

uint64_t hobbes_nis_writer_silence(hobbes_nis* nis) { return nis->reader->writer_silence_ns(); }

hobbes_segid hobbes_segment_make(const char* name, size_t size, unsigned mode, unsigned flags,
                                 void** address) {
  hobbes::SegmentOptions options;
  options.mode = static_cast<mode_t>(mode);
  options.page_size = (flags & HOBBES_HUGE_1G) != 0   ? 1U << 30U
                      : (flags & HOBBES_HUGE_2M) != 0 ? 2U << 20U
                                                      : 0;
  options.persistent = (flags & HOBBES_PERSISTENT) != 0;
  options.snapshots = (flags & HOBBES_SNAPSHOTS) != 0;
  auto made = *address == nullptr ? hobbes::Segment::make(name, size, options)
                                  : hobbes::Segment::make_of(name, *address, size, options);
  if (!made) return failed(made.error());
  *address = made->data();
  return keep(std::move(*made));
}

hobbes_segid hobbes_segment_snapshot(hobbes_segid segment, const char* name, unsigned mode,
                                     unsigned flags, int timeout_ms, const void** address) {
  hobbes::SnapshotOptions options;
  if (name != nullptr) options.name = name;
  options.mode = static_cast<mode_t>(mode);
  options.copy = (flags & HOBBES_SNAPSHOT_COPY) != 0;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  auto taken = hobbes::take_snapshot(static_cast<std::uint64_t>(segment), options);
  if (!taken) return failed(taken.error());
  *address = taken->data();
  return keep(std::move(*taken));
}

hobbes_segid hobbes_segment_search(const char* name) {
  auto nis = hobbes::NisReader::open(hobbes::mirror_path());
  if (!nis) return failed(nis.error());
  hobbes_record record;
  if ((*nis)->segment_named(name, ::geteuid(), &record) == hobbes::NisReader::Status::good)
    return static_cast<hobbes_segid>(record.id);
  return failed({hobbes::Code::not_found, "find segment '" + std::string(name) + "'",
                 "there is no such segment", "see `hobbes segments`"});
}

hobbes_segid hobbes_segment_search_of(const char* name, unsigned owner) {
  auto nis = hobbes::NisReader::open(hobbes::mirror_path());
  if (!nis) return failed(nis.error());
  hobbes_record record;
  if ((*nis)->by_name(HOBBES_SEGMENT, owner, name, &record) == hobbes::NisReader::Status::good)
    return static_cast<hobbes_segid>(record.id);
  return failed({hobbes::Code::not_found,
                 "find segment '" + std::string(name) + "' of user " + std::to_string(owner),
                 "there is no such segment", "see `hobbes segments`"});
}

hobbes_apid hobbes_segment_get(hobbes_segid segment, int access) {
  auto got = hobbes::SegmentAccess::get(static_cast<std::uint64_t>(segment), access == HOBBES_RDWR);
  if (!got) return failed(got.error());
  Open& open = opened();
  std::lock_guard guard(open.lock);
  hobbes_apid id = ++open.last_access;
  open.accesses.emplace(id, std::make_shared<hobbes::SegmentAccess>(std::move(*got)));
  return id;
}

int64_t hobbes_segment_size(hobbes_apid access) {
  int64_t size = 0;
  int found = with_access(access, "tell a segment's size", [&](Open&, auto at) {
    size = static_cast<int64_t>(at->second->size());
    return 0;
  });
  return found == 0 ? size : found;
}

void* hobbes_segment_attach(hobbes_apid access, size_t offset, size_t size) {
  void* place = nullptr;
  (void)with_access(access, "attach a segment", [&](Open& open, auto at) {
    if (size == 0 && offset < at->second->size()) size = at->second->size() - offset;
    auto mapped = at->second->map(offset, size);
    if (!mapped) return failed(mapped.error());
    open.mappings[*mapped] = {size, at->second->writable() ? at->second : nullptr};
    place = *mapped;
    return 0;
  });
  return place;
}

int hobbes_segment_detach(void* address) {
  Open& open = opened();
  std::optional<hobbes::Segment> ended;  // without the lock: hobbesd is told
  std::lock_guard guard(open.lock);
  if (auto at = open.mappings.find(address); at != open.mappings.end()) {
    ::munmap(address, at->second.size);
    open.mappings.erase(at);
    return 0;
  }
  auto made = std::find_if(open.made.begin(), open.made.end(),
                           [&](const auto& one) { return one.second.data() == address; });
  if (made == open.made.end())
    return failed({hobbes::Code::invalid, "detach a segment", "nothing is attached there", ""});
  ended.emplace(std::move(made->second));
  open.made.erase(made);
  return 0;
}

int hobbes_segment_release(hobbes_apid access) {
  return with_access(access, "release a segment", [](Open& open, auto at) {
    open.accesses.erase(at);
    return 0;
  });
}

int hobbes_segment_listen(hobbes_apid access) {
  return with_access(access, "listen to a segment's doorbell", [](Open&, auto at) {
    auto descriptor = at->second->doorbell().listen();
    return descriptor ? *descriptor : failed(descriptor.error());
  });
}

int hobbes_segment_wait(hobbes_apid access, int timeout_ms) {
  const std::string attempt = "wait for a segment's doorbell";
  int descriptor = with_access(access, attempt, [&](Open&, auto at) {
    int number = at->second->doorbell().descriptor();
    return number >= 0 ? number
                       : failed({hobbes::Code::invalid, attempt, "the access does not listen",
                                 "call hobbes_segment_listen first"});
  });
  if (descriptor < 0) return descriptor;
  auto rang = hobbes::Doorbell::wait(
      descriptor, std::chrono::milliseconds(timeout_ms));  // without the lock: others may ring
  return rang ? 0 : failed(rang.error());
}

int hobbes_segment_ring(hobbes_apid access) {
  return with_access(access, "ring a segment's doorbell", [](Open&, auto at) {
    auto rung = at->second->doorbell().ring();
    return rung ? 0 : failed(rung.error());
  });
}

int hobbes_segment_remove(hobbes_segid segment) {
  auto client = hobbes::Client::connect(false);
  if (!client) return failed(client.error());
  auto removed = client->call("segment.remove", {{"handle", segment}});
  return removed ? 0 : failed(removed.error());
}

const char* hobbes_self(void) {
  // A program that was executed in an enclave has not its environment, and hobbesd knows.
  static const std::string self = []() -> std::string {
    if (const char* id = std::getenv("HOBBES_ENCLAVE")) return id;
    auto client = hobbes::Client::connect(false);
    if (!client) return "";
    auto answer = client->call("self", hobbes::Json::object());
    return answer ? hobbes::text_at(answer->body, "id") : "";
  }();
  return self.c_str();
}

int hobbes_beat(void) {
  auto client = hobbes::Client::connect(false);
  if (!client) return failed(client.error());
  auto beaten = client->call("enclave.beat", hobbes::Json::object());
  return beaten ? 0 : failed(beaten.error());
}

int hobbes_enclave_list(char* ids, size_t size) {
  auto nis = hobbes::NisReader::open(hobbes::mirror_path());
  if (!nis) return failed(nis.error());
  int count = 0;
  size_t used = 0;
  for (const hobbes_record& record : (*nis)->all(HOBBES_ENCLAVE)) {
    size_t length = std::strlen(record.name) + 1;
    if (used + length > size)
      return failed({hobbes::Code::exhausted, "list enclaves", "the buffer is too small",
                     "give a larger one"});
    std::memcpy(ids + used, record.name, length);
    used += length;
    ++count;
  }
  return count;
}

int hobbes_enclave_find(const char* id, struct hobbes_record* out) {
  auto nis = hobbes::NisReader::open(hobbes::mirror_path());
  if (!nis) return failed(nis.error());
  return number_of((*nis)->by_name(HOBBES_ENCLAVE, hobbes_root_scope(nullptr), id, out),
                   "find an enclave");
}

int hobbes_enclave_create(const char* id, const char* bundle, int start) {
  return operate(start != 0 ? "run" : "create", id, {{"bundle", hobbes::absolute(bundle)}});
}

int hobbes_enclave_resize(const char* id, unsigned cores, uint64_t memory) {
  hobbes::Json request = hobbes::Json::object();
  if (cores > 0) request["cores"] = cores;
  if (memory > 0) request["memory"] = memory;
  return operate("update", id, std::move(request));
}

int hobbes_enclave_signal(const char* id, int number) {
  return operate("kill", id, {{"signal", std::to_string(number)}});
}
int hobbes_enclave_delete(const char* id) { return operate("delete", id, {{"force", true}}); }

int hobbes_enclave_launch(const char* id, const char* const argv[]) {
  hobbes::Json arguments = hobbes::Json::array();
  for (const char* const* word = argv; *word != nullptr; ++word) arguments.push_back(*word);
  int status = 0;
  int result = operate("exec", id, {{"args", std::move(arguments)}}, &status);
  return result != 0 ? result : status;
}

int hobbes_process_signal(uint64_t id, int number) {
  auto client = hobbes::Client::connect(false);
  if (!client) return failed(client.error());
  auto done = client->call("process.kill", {{"id", id}, {"signal", number}});
  return done ? 0 : failed(done.error());
}

uint64_t hobbes_root_scope(const char* root) {
  return hobbes::enclave_scope(::geteuid(),
                               root != nullptr ? std::string(root) : hobbes::default_root());
}

}  // extern "C"

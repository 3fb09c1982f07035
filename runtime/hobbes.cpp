// The C API over the C++ libraries: no logic of its own, only translation of errors and ownership.
#include "hobbes.h"

#include <cerrno>
#include <memory>
#include <string>

#include "core/identity.h"
#include "core/paths.h"
#include "nis/reader.h"

struct hobbes_nis {
  std::unique_ptr<hobbes::NisReader> reader;
};

namespace {

thread_local std::string last_error;

int number_of(hobbes::Code code) {
  using hobbes::Code;
  switch (code) {
    case Code::invalid: return EINVAL;
    case Code::not_found: return ENOENT;
    case Code::exists: return EEXIST;
    case Code::busy: return EBUSY;
    case Code::denied: return EACCES;
    case Code::exhausted: return ENOSPC;
    case Code::unavailable: return ECONNREFUSED;
    case Code::unsupported: return EOPNOTSUPP;
    case Code::timeout: return ETIMEDOUT;
    case Code::corrupt: return EBADMSG;
    case Code::os: return EIO;
  }
  return EIO;
}

int failed(const hobbes::Error& error) {
  last_error = error.text();
  errno = number_of(error.code);
  return -errno;
}

int number_of(hobbes::NisReader::Status status) {
  switch (status) {
    case hobbes::NisReader::Status::good: return 0;
    case hobbes::NisReader::Status::absent: return -ENOENT;
    default: return -EBADMSG;
  }
}

}  // namespace

extern "C" {

const char* hobbes_error(void) { return last_error.c_str(); }

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
  return number_of(nis->reader->by_id(id, out));
}

int hobbes_nis_by_name(hobbes_nis* nis, enum hobbes_record_type type, uint64_t scope, const char* name,
                       struct hobbes_record* out) {
  return number_of(nis->reader->by_name(static_cast<std::uint16_t>(type), scope, name, out));
}

int hobbes_nis_next(hobbes_nis* nis, enum hobbes_record_type type, uint64_t* cursor, struct hobbes_record* out) {
  return number_of(nis->reader->next(static_cast<std::uint16_t>(type), cursor, out));
}

uint64_t hobbes_nis_sequence(hobbes_nis* nis) { return nis->reader->sequence(); }

int hobbes_nis_wait(hobbes_nis* nis, uint64_t* sequence, struct hobbes_change* out, int timeout_ms) {
  switch (nis->reader->wait(sequence, out, timeout_ms)) {
    case hobbes::NisReader::Status::good: return 0;
    case hobbes::NisReader::Status::absent: return -ETIMEDOUT;
    default: return nis->reader->replaced() ? -ESTALE : -EOVERFLOW;
  }
}

uint64_t hobbes_nis_writer_silence(hobbes_nis* nis) { return nis->reader->writer_silence_ns(); }

uint64_t hobbes_root_scope(const char* root) {
  return hobbes::hash_of(root != nullptr ? std::string(root) : hobbes::default_root());
}

}  // extern "C"

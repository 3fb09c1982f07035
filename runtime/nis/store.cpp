#include "nis/store.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "core/file.h"

namespace hobbes {
namespace {

constexpr std::uint64_t space_needed = 64U << 20U;  // twice the write-ahead log

Error error_of(const rocksdb::Status& status, const std::string& attempt) {
  std::string why = status.ToString();
  if (status.IsNotFound()) return {Code::not_found, attempt, why, ""};
  if (status.IsCorruption()) return {Code::corrupt, attempt, why, ""};
  if (status.IsNoSpace() || why.find("No space left") != std::string::npos)
    return {Code::exhausted, attempt, why, "free space on that file system"};
  if (status.IsBusy() || why.find("lock") != std::string::npos)
    return {Code::busy, attempt, "another process holds it: " + why,
            "stop the other hobbesd, or use another state directory"};
  if (why.find("Read-only file system") != std::string::npos ||
      why.find("Permission denied") != std::string::npos)
    return {Code::denied, attempt, why, "make it writable, or use another state directory"};
  return {Code::os, attempt, why, ""};
}

class RocksStore final : public Store {
 public:
  RocksStore(std::unique_ptr<rocksdb::DB> db, std::string directory)
      : db_(std::move(db)), directory_(std::move(directory)) {}

  Result<void> write(const Batch& batch) override {
    rocksdb::WriteBatch writes;
    for (const auto& [key, value] : batch.puts) writes.Put(key, value);
    for (const std::string& key : batch.deletes) writes.Delete(key);
    rocksdb::WriteOptions options;
    options.sync = batch.durable;
    auto status = db_->Write(options, &writes);
    // After a failed write RocksDB refuses all others until told that the cause is gone.
    if (!status.ok() && db_->Resume().ok()) status = db_->Write(options, &writes);
    if (!status.ok()) return error_of(status, "record a change in " + directory_);
    return {};
  }

  Result<std::string> read(const std::string& key) override {
    std::string value;
    auto status = db_->Get(rocksdb::ReadOptions(), key, &value);
    if (!status.ok()) return error_of(status, "read '" + key + "' from " + directory_);
    return value;
  }

  Result<void> each(const std::string& prefix,
                    const std::function<void(std::string_view, std::string_view)>& visit) override {
    std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(rocksdb::ReadOptions()));
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
      visit(at->key().ToStringView(), at->value().ToStringView());
    if (!at->status().ok()) return error_of(at->status(), "read " + directory_);
    return {};
  }

 private:
  std::unique_ptr<rocksdb::DB> db_;
  std::string directory_;
};

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::string& directory) {
  HOBBES_CHECK(make_directories(directory, 0700));
  // Asked beforehand: this RocksDB aborts the process when a file it is creating meets a full disk.
  struct statvfs space {};
  if (::statvfs(directory.c_str(), &space) == 0 && space.f_bavail * space.f_frsize < space_needed)
    return Error{Code::exhausted, "open the state database " + directory,
                 "No space left: " + std::to_string(space.f_bavail * space.f_frsize >> 10U) +
                     " KiB are free, " + std::to_string(space_needed >> 10U) + " KiB are needed",
                 "free space on that file system"};
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression =
      rocksdb::kNoCompression;  // small values; no dependency on a compressor at run time
  options.write_buffer_size = 8U << 20U;
  options.max_total_wal_size = 32U << 20U;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1U << 20U;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.max_background_jobs = 1;
  options.max_open_files = 64;
  options.paranoid_checks = true;
  // A kill between two writes may leave a torn last one, never a torn earlier one.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  rocksdb::DB* raw = nullptr;
  auto status = rocksdb::DB::Open(options, directory, &raw);
  if (!status.ok()) return error_of(status, "open the state database " + directory);
  return std::unique_ptr<Store>(new RocksStore(std::unique_ptr<rocksdb::DB>(raw), directory));
}

}  // namespace hobbes

// One record of the node's state, read from the mirror, from RocksDB and from LMDB.
#include <benchmark/benchmark.h>
#include <lmdb.h>
#include <rocksdb/db.h>
#include <stdlib.h>

#include <memory>
#include <string>

#include "core/file.h"
#include "nis/mirror.h"
#include "nis/nis.h"
#include "nis/reader.h"

namespace {

constexpr std::uint64_t records = 10'000;

std::string folder() {
  static const std::string path = [] {
    char name[] = "/dev/shm/hobbes-bench.XXXXXX";
    return std::string(::mkdtemp(name));
  }();
  return path;
}

hobbes_record record(std::uint64_t i) {
  hobbes_record r{};
  r.id = 1ULL << 32U | i;
  r.type = HOBBES_ENCLAVE;
  hobbes::set_name(r, "enclave-" + std::to_string(i));
  return r;
}

hobbes::NisReader& mirror() {
  static auto reader = [] {
    auto writer = hobbes::Mirror::create(folder() + "/nis", 0644);
    for (std::uint64_t i = 0; i < records; ++i) (void)writer->publish(record(i));
    return *hobbes::NisReader::open(folder() + "/nis");
  }();
  return *reader;
}

void mirror_by_id(benchmark::State& state) {
  hobbes_record out;
  std::uint64_t i = 0;
  for (auto unused : state) {
    benchmark::DoNotOptimize(mirror().by_id(1ULL << 32U | (i++ * 7919 % records), &out));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(mirror_by_id);

void mirror_by_name(benchmark::State& state) {
  hobbes_record out;
  std::uint64_t i = 0;
  for (auto unused : state) {
    state.PauseTiming();
    std::string name = "enclave-" + std::to_string(i++ * 7919 % records);
    state.ResumeTiming();
    benchmark::DoNotOptimize(mirror().by_name(HOBBES_ENCLAVE, 0, name.c_str(), &out));
  }
}
BENCHMARK(mirror_by_name);

void rocksdb_get(benchmark::State& state) {
  rocksdb::DB* raw = nullptr;
  rocksdb::Options options;
  options.create_if_missing = true;
  (void)rocksdb::DB::Open(options, folder() + "/rocks", &raw);
  std::unique_ptr<rocksdb::DB> db(raw);
  for (std::uint64_t i = 0; i < records; ++i) {
    hobbes_record r = record(i);
    (void)db->Put({}, {reinterpret_cast<const char*>(&r.id), 8},
                  {reinterpret_cast<const char*>(&r), sizeof r});
  }
  std::string value;
  std::uint64_t i = 0;
  for (auto unused : state) {
    std::uint64_t id = 1ULL << 32U | (i++ * 7919 % records);
    benchmark::DoNotOptimize(db->Get({}, {reinterpret_cast<const char*>(&id), 8}, &value).ok());
  }
}
BENCHMARK(rocksdb_get);

void lmdb_get(benchmark::State& state) {
  MDB_env* environment = nullptr;
  (void)hobbes::make_directories(folder() + "/lmdb");
  mdb_env_create(&environment);
  mdb_env_set_mapsize(environment, 64U << 20U);
  mdb_env_open(environment, (folder() + "/lmdb").c_str(), MDB_NOSYNC, 0600);
  MDB_txn* transaction = nullptr;
  MDB_dbi table = 0;
  mdb_txn_begin(environment, nullptr, 0, &transaction);
  mdb_dbi_open(transaction, nullptr, MDB_CREATE, &table);
  for (std::uint64_t i = 0; i < records; ++i) {
    hobbes_record r = record(i);
    MDB_val key{8, &r.id}, value{sizeof r, &r};
    mdb_put(transaction, table, &key, &value, 0);
  }
  mdb_txn_commit(transaction);
  // As a reader of changing state must: a fresh snapshot for every read, and the record copied out.
  mdb_txn_begin(environment, nullptr, MDB_RDONLY, &transaction);
  mdb_txn_reset(transaction);
  std::uint64_t i = 0;
  hobbes_record out;
  for (auto unused : state) {
    std::uint64_t id = 1ULL << 32U | (i++ * 7919 % records);
    mdb_txn_renew(transaction);
    MDB_val key{8, &id}, value{};
    if (mdb_get(transaction, table, &key, &value) == 0)
      std::memcpy(&out, value.mv_data, sizeof out);
    mdb_txn_reset(transaction);
    benchmark::ClobberMemory();
  }
  mdb_txn_abort(transaction);
  mdb_env_close(environment);
}
BENCHMARK(lmdb_get);

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  (void)hobbes::remove_tree(folder());
  return 0;
}

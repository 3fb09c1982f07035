#include "remora/pmix_server.h"

#include <hwloc.h>
#include <pmix.h>
#include <pmix_server.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "core/event_fd.h"

namespace hobbes {
namespace {

Error refused(const std::string& attempt, pmix_status_t status) {
  return {Code::os, attempt, std::string("PMIx says ") + PMIx_Error_string(status), ""};
}

// A list of pmix_info_t that frees what it loaded.
class InfoList {
 public:
  InfoList() = default;
  InfoList(const InfoList&) = delete;
  InfoList& operator=(const InfoList&) = delete;
  ~InfoList() {
    for (pmix_info_t& info : list_) PMIX_INFO_DESTRUCT(&info);
  }
  template <class T>
  void add(const char* key, T value, pmix_data_type_t type) {
    load(key, &value, type);
  }
  void add(const char* key, const std::string& text, pmix_data_type_t type = PMIX_STRING) {
    load(key, text.c_str(), type);
  }
  void add(const char* key, const InfoList& inner) {
    pmix_data_array_t array;
    PMIX_DATA_ARRAY_CONSTRUCT(&array, inner.list_.size(), PMIX_INFO);
    auto* items = static_cast<pmix_info_t*>(array.array);
    for (std::size_t i = 0; i < inner.list_.size(); ++i) PMIX_INFO_XFER(&items[i], &inner.list_[i]);
    load(key, &array, PMIX_DATA_ARRAY);
    PMIX_DATA_ARRAY_DESTRUCT(&array);
  }
  void add(const char* key, const pmix_proc_t* processes, std::size_t count) {
    pmix_data_array_t array;
    PMIX_DATA_ARRAY_CONSTRUCT(&array, count, PMIX_PROC);
    std::copy(processes, processes + count, static_cast<pmix_proc_t*>(array.array));
    load(key, &array, PMIX_DATA_ARRAY);
    PMIX_DATA_ARRAY_DESTRUCT(&array);
  }
  /// As it is.
  void add(const pmix_info_t& info) {
    pmix_info_t copy;
    PMIX_INFO_CONSTRUCT(&copy);
    PMIX_INFO_XFER(&copy, &info);
    list_.push_back(copy);
  }
  pmix_info_t* data() { return list_.data(); }
  [[nodiscard]] std::size_t size() const { return list_.size(); }

 private:
  void load(const char* key, const void* value, pmix_data_type_t type) {
    pmix_info_t info;
    PMIX_INFO_CONSTRUCT(&info);
    PMIX_INFO_LOAD(&info, key, value, type);
    list_.push_back(info);
  }
  std::vector<pmix_info_t> list_;
};

constexpr std::chrono::seconds completion_limit(20), ending_limit(3);

// Waits for one PMIx completion. A waiter that has given up leaves the rest to the callback, should
// it ever come.
class Completion {
 public:
  static void done(pmix_status_t status, void* self) {
    std::unique_ptr<std::shared_ptr<State>> state(static_cast<std::shared_ptr<State>*>(self));
    std::lock_guard guard((*state)->lock);
    (*state)->status = status;
    (*state)->done = true;
    (*state)->changed.notify_one();
  }
  /// What `done` is to be called with. Once per completion.
  [[nodiscard]] void* token() const { return new std::shared_ptr<State>(state_); }
  /// `started` is what the call itself returned.
  Result<void> wait(pmix_status_t started, const std::string& attempt) {
    if (started == PMIX_OPERATION_SUCCEEDED) return {};
    if (started != PMIX_SUCCESS) return refused(attempt, started);
    std::unique_lock guard(state_->lock);
    if (!state_->changed.wait_for(guard, completion_limit, [&] { return state_->done; }))
      return Error{
          Code::timeout, attempt,
          "PMIx has not answered within " + std::to_string(completion_limit.count()) + " s",
          "start it again"};
    if (state_->status != PMIX_SUCCESS && state_->status != PMIX_OPERATION_SUCCEEDED)
      return refused(attempt, state_->status);
    return {};
  }

 private:
  struct State {
    std::mutex lock;
    std::condition_variable changed;
    bool done = false;
    pmix_status_t status = PMIX_SUCCESS;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// PMIx forbids calling its callbacks from inside a module function; they are called from this
// thread instead. A call posted after `finish` is dropped: the library is about to end.
class CallbackThread {
 public:
  void start() {
    thread_ = std::thread([this] { run(); });
  }
  void post(std::function<void()> call) {
    {
      std::lock_guard guard(lock_);
      if (stopping_) return;
      queue_.push_back(std::move(call));
    }
    changed_.notify_one();
  }
  void finish() {
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run() {
    std::unique_lock guard(lock_);
    for (;;) {
      changed_.wait(guard, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      auto call = std::move(queue_.front());
      queue_.pop_front();
      guard.unlock();
      call();
      guard.lock();
    }
  }
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

struct Published {
  pmix_proc_t owner;
  pmix_value_t value;
  bool first_read_only;
};

struct Waiting {
  std::vector<std::string> keys;
  pmix_lookup_cbfunc_t callback;
  void* data;
  std::chrono::steady_clock::time_point deadline;
};

class Server final : public PmixServer {
 public:
  Result<void> begin(const std::string& job, const std::string& directory,
                     const std::vector<PmixRank>& ranks, const std::vector<std::string>& apps);
  ~Server() override;
  Result<std::vector<std::string>> environment_of(unsigned rank) override;
  [[nodiscard]] int descriptor() const override { return ready_.get(); }
  std::vector<PmixEvent> take() override;

  void say(PmixEvent event);
  void publish(const pmix_proc_t* owner, const pmix_info_t* info, std::size_t count);
  pmix_status_t lookup(char** keys, const pmix_info_t* info, std::size_t count,
                       pmix_lookup_cbfunc_t callback, void* data);
  void unpublish(char** keys);
  /// Hands over an answer that the library gives back once it has read it.
  void answer(std::unique_ptr<InfoList> info, pmix_info_cbfunc_t callback, void* data);
  [[nodiscard]] const std::vector<std::string>& sets() const { return sets_; }
  std::size_t next_group() { return ++groups_; }
  CallbackThread callbacks;

 private:
  bool answer(const std::vector<std::string>& keys, pmix_lookup_cbfunc_t callback, void* data,
              bool partial);
  void expire();

  std::string job_;
  std::vector<std::string> sets_;  // of processes, by app
  std::atomic<std::size_t> groups_ = 0;
  bool serving_ = false;
  EventFd ready_;
  std::mutex lock_;
  std::vector<PmixEvent> events_;
  std::mutex published_lock_;
  std::map<std::string, Published> published_;
  std::vector<Waiting> waiting_;
};

// The module's functions carry no user pointer.
Server* the_server = nullptr;

pmix_status_t on_connected(const pmix_proc_t* who, void*, pmix_info_t*, std::size_t,
                           pmix_op_cbfunc_t, void*) {
  the_server->say({PmixEvent::Kind::connected, who->rank, 0, "", ""});
  return PMIX_OPERATION_SUCCEEDED;
}

pmix_status_t on_finalized(const pmix_proc_t* who, void*, pmix_op_cbfunc_t, void*) {
  the_server->say({PmixEvent::Kind::finalized, who->rank, 0, "", ""});
  return PMIX_OPERATION_SUCCEEDED;
}

pmix_status_t on_abort(const pmix_proc_t* who, void*, int status, const char* message, pmix_proc_t*,
                       std::size_t, pmix_op_cbfunc_t callback, void* data) {
  the_server->say(
      {PmixEvent::Kind::aborted, who->rank, status, "", message != nullptr ? message : ""});
  if (callback != nullptr) the_server->callbacks.post([=] { callback(PMIX_SUCCESS, data); });
  return PMIX_SUCCESS;
}

// One host: the library has already waited for every participant.
pmix_status_t on_fence(const pmix_proc_t*, std::size_t, const pmix_info_t*, std::size_t,
                       char* bytes, std::size_t size, pmix_modex_cbfunc_t callback, void* data) {
  the_server->callbacks.post([=] {
    callback(
        PMIX_SUCCESS, bytes, size, data, [](void* p) { std::free(p); }, bytes);
  });
  return PMIX_SUCCESS;
}

pmix_status_t on_modex(const pmix_proc_t*, const pmix_info_t*, std::size_t,
                       pmix_modex_cbfunc_t callback, void* data) {
  the_server->callbacks.post(
      [=] { callback(PMIX_ERR_NOT_FOUND, nullptr, 0, data, nullptr, nullptr); });
  return PMIX_SUCCESS;
}

pmix_status_t on_publish(const pmix_proc_t* who, const pmix_info_t* info, std::size_t count,
                         pmix_op_cbfunc_t callback, void* data) {
  the_server->publish(who, info, count);
  the_server->callbacks.post([=] { callback(PMIX_SUCCESS, data); });
  return PMIX_SUCCESS;
}

pmix_status_t on_lookup(const pmix_proc_t*, char** keys, const pmix_info_t* info, std::size_t count,
                        pmix_lookup_cbfunc_t callback, void* data) {
  return the_server->lookup(keys, info, count, callback, data);
}

pmix_status_t on_unpublish(const pmix_proc_t*, char** keys, const pmix_info_t*, std::size_t,
                           pmix_op_cbfunc_t callback, void* data) {
  the_server->unpublish(keys);
  the_server->callbacks.post([=] { callback(PMIX_SUCCESS, data); });
  return PMIX_SUCCESS;
}

pmix_status_t on_connect(const pmix_proc_t*, std::size_t, const pmix_info_t*, std::size_t,
                         pmix_op_cbfunc_t callback, void* data) {
  the_server->callbacks.post([=] { callback(PMIX_SUCCESS, data); });
  return PMIX_SUCCESS;
}

pmix_status_t on_register_events(pmix_status_t*, std::size_t, const pmix_info_t*, std::size_t,
                                 pmix_op_cbfunc_t, void*) {
  return PMIX_OPERATION_SUCCEEDED;
}
pmix_status_t on_deregister_events(pmix_status_t*, std::size_t, pmix_op_cbfunc_t, void*) {
  return PMIX_OPERATION_SUCCEEDED;
}
pmix_status_t on_notify(pmix_status_t, const pmix_proc_t*, pmix_data_range_t, pmix_info_t*,
                        std::size_t, pmix_op_cbfunc_t, void*) {
  return PMIX_OPERATION_SUCCEEDED;
}

// MPI_Session_get_num_psets and MPI_Session_get_nth_pset. Who is in a set each process says of
// itself (PMIX_PSET_NAME).
pmix_status_t on_query(pmix_proc_t*, pmix_query_t* queries, std::size_t count,
                       pmix_info_cbfunc_t callback, void* data) {
  auto out = std::make_unique<InfoList>();
  for (std::size_t i = 0; i < count; ++i)
    for (char** key = queries[i].keys; key != nullptr && *key != nullptr; ++key) {
      const std::vector<std::string>& sets = the_server->sets();
      if (std::strcmp(*key, PMIX_QUERY_NUM_PSETS) == 0) {
        out->add(*key, sets.size(), PMIX_SIZE);
      } else if (std::strcmp(*key, PMIX_QUERY_PSET_NAMES) == 0) {
        std::string names;
        for (const std::string& name : sets) names += (names.empty() ? "" : ",") + name;
        out->add(*key, names);
      }
    }
  if (out->size() == 0) return PMIX_ERR_NOT_SUPPORTED;
  the_server->answer(std::move(out), callback, data);
  return PMIX_SUCCESS;
}

// MPI_Comm_create_from_group asks for a number that no other group of the job has. The library has
// waited for every member, and what they tell each other comes back as it went. The end of a group
// is answered at once: libpmix 5.0.7 would ask, and answer its members, a second time.
pmix_status_t on_group(pmix_group_operation_t operation, char*, const pmix_proc_t* members,
                       std::size_t size, const pmix_info_t* info, std::size_t count,
                       pmix_info_cbfunc_t callback, void* data) {
  if (operation != PMIX_GROUP_CONSTRUCT) return PMIX_OPERATION_SUCCEEDED;
  auto out = std::make_unique<InfoList>();
  for (std::size_t i = 0; i < count; ++i)
    if (PMIX_CHECK_KEY(&info[i], PMIX_GROUP_ENDPT_DATA)) out->add(info[i]);
  out->add(PMIX_GROUP_CONTEXT_ID, the_server->next_group(), PMIX_SIZE);
  out->add(PMIX_GROUP_MEMBERSHIP, members, size);
  the_server->answer(std::move(out), callback, data);
  return PMIX_SUCCESS;
}

pmix_status_t on_spawn(const pmix_proc_t*, const pmix_info_t*, std::size_t, const pmix_app_t*,
                       std::size_t, pmix_spawn_cbfunc_t, void*) {
  return PMIX_ERR_NOT_SUPPORTED;  // a composition's programs are those in its document
}

std::string topology_xml() {
  hwloc_topology_t topology = nullptr;
  std::string out;
  if (hwloc_topology_init(&topology) != 0) return out;
  hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  char* text = nullptr;
  int length = 0;
  if (hwloc_topology_load(topology) == 0 &&
      hwloc_topology_export_xmlbuffer(topology, &text, &length, 0) == 0) {
    out = text;
    hwloc_free_xmlbuffer(topology, text);
  }
  hwloc_topology_destroy(topology);
  return out;
}

Result<void> Server::begin(const std::string& job, const std::string& directory,
                           const std::vector<PmixRank>& ranks,
                           const std::vector<std::string>& apps) {
  job_ = job;
  for (const std::string& app : apps) sets_.push_back("hobbes://" + app);
  HOBBES_TRY(ready, EventFd::make("start the PMIx server"));
  ready_ = std::move(ready);
  the_server = this;
  callbacks.start();
  ::setenv("PMIX_MCA_gds", "hash", 1);

  pmix_server_module_t module;
  std::memset(&module, 0, sizeof module);
  module.client_connected2 = on_connected;
  module.client_finalized = on_finalized;
  module.abort = on_abort;
  module.fence_nb = on_fence;
  module.direct_modex = on_modex;
  module.publish = on_publish;
  module.lookup = on_lookup;
  module.unpublish = on_unpublish;
  module.connect = on_connect;
  module.disconnect = on_connect;
  module.register_events = on_register_events;
  module.deregister_events = on_deregister_events;
  module.notify_event = on_notify;
  module.spawn = on_spawn;
  module.query = on_query;
  module.group = on_group;
  InfoList options;
  options.add(PMIX_SERVER_TMPDIR, directory);
  options.add(PMIX_SERVER_NSPACE, job + "-server");
  options.add(PMIX_SERVER_RANK, pmix_rank_t{0}, PMIX_PROC_RANK);
  auto status = PMIx_server_init(&module, options.data(), options.size());
  if (status != PMIX_SUCCESS) return refused("start the PMIx server", status);
  serving_ = true;

  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  auto size = static_cast<std::uint32_t>(ranks.size());
  std::string peers;
  for (std::size_t i = 0; i < ranks.size(); ++i) peers += (i != 0 ? "," : "") + std::to_string(i);
  char *nodes = nullptr, *processes = nullptr;
  PMIx_generate_regex(host, &nodes);
  PMIx_generate_ppn(peers.c_str(), &processes);
  std::string job_directory = directory + "/" + job;
  ::mkdir(job_directory.c_str(), 0700);

  InfoList about;
  about.add(PMIX_JOB_SIZE, size, PMIX_UINT32);
  about.add(PMIX_MAX_PROCS, size, PMIX_UINT32);
  about.add(PMIX_UNIV_SIZE, size, PMIX_UINT32);
  about.add(PMIX_LOCAL_SIZE, size, PMIX_UINT32);
  about.add(PMIX_NODE_SIZE, size, PMIX_UINT32);
  about.add(PMIX_LOCAL_PEERS, peers);
  about.add(PMIX_NODE_MAP, std::string(nodes), PMIX_REGEX);
  about.add(PMIX_PROC_MAP, std::string(processes), PMIX_REGEX);
  about.add(PMIX_JOB_NUM_APPS, static_cast<std::uint32_t>(apps.size()), PMIX_UINT32);
  about.add(PMIX_NUM_NODES, std::uint32_t{1}, PMIX_UINT32);
  about.add(PMIX_JOBID, job);
  about.add(PMIX_LOCALLDR, pmix_rank_t{0}, PMIX_PROC_RANK);
  about.add(PMIX_TMPDIR, directory);
  about.add(PMIX_NSDIR, job_directory);
  about.add(PMIX_TDIR_RMCLEAN, true, PMIX_BOOL);
  about.add(PMIX_SPAWNED, false, PMIX_BOOL);
  about.add("pmix.hwlocxml2", topology_xml());
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    std::string own = job_directory + "/" + std::to_string(rank);
    ::mkdir(own.c_str(), 0700);
    InfoList process;
    process.add(PMIX_RANK, pmix_rank_t{rank}, PMIX_PROC_RANK);
    process.add(PMIX_LOCAL_RANK, static_cast<std::uint16_t>(rank), PMIX_UINT16);
    process.add(PMIX_NODE_RANK, static_cast<std::uint16_t>(rank), PMIX_UINT16);
    process.add(PMIX_APPNUM, std::uint32_t{ranks[rank].app}, PMIX_UINT32);
    process.add(PMIX_APP_RANK, pmix_rank_t{ranks[rank].app_rank}, PMIX_PROC_RANK);
    process.add(PMIX_GLOBAL_RANK, pmix_rank_t{rank}, PMIX_PROC_RANK);
    process.add(PMIX_NODEID, std::uint32_t{0}, PMIX_UINT32);
    process.add(PMIX_HOSTNAME, std::string(host));
    process.add(PMIX_PROCDIR, own);
    about.add(PMIX_PROC_DATA, process);
  }
  for (std::uint32_t number = 0; number < apps.size(); ++number) {
    auto is_member = [&](const PmixRank& rank) { return rank.app == number; };
    auto first = std::find_if(ranks.begin(), ranks.end(), is_member);
    InfoList app;
    app.add(PMIX_APPNUM, number, PMIX_UINT32);
    app.add(PMIX_APP_SIZE,
            static_cast<std::uint32_t>(std::count_if(ranks.begin(), ranks.end(), is_member)),
            PMIX_UINT32);
    app.add(PMIX_APPLDR, static_cast<pmix_rank_t>(first - ranks.begin()), PMIX_PROC_RANK);
    app.add(PMIX_PSET_NAME, sets_[number]);
    about.add(PMIX_APP_INFO_ARRAY, app);
  }
  std::free(nodes);
  std::free(processes);
  Completion registered;
  HOBBES_CHECK(registered.wait(
      PMIx_server_register_nspace(job.c_str(), static_cast<int>(size), about.data(), about.size(),
                                  Completion::done, registered.token()),
      "register the job"));
  return {};
}

Server::~Server() {
  if (serving_) {
    Completion gone;
    PMIx_server_deregister_nspace(job_.c_str(), Completion::done, gone.token());
    (void)gone.wait(PMIX_SUCCESS, "deregister the job");
  }
  callbacks.finish();  // a callback after the end of the library would use its freed memory
  if (serving_) PMIx_server_finalize();
  the_server = nullptr;
}

Result<std::vector<std::string>> Server::environment_of(unsigned rank) {
  pmix_proc_t who;
  PMIX_PROC_LOAD(&who, job_.c_str(), rank);
  Completion registered;
  HOBBES_CHECK(registered.wait(PMIx_server_register_client(&who, ::getuid(), ::getgid(), nullptr,
                                                           Completion::done, registered.token()),
                               "register rank " + std::to_string(rank)));
  char** list = nullptr;
  auto status = PMIx_server_setup_fork(&who, &list);
  if (status != PMIX_SUCCESS) return refused("prepare rank " + std::to_string(rank), status);
  std::vector<std::string> out;
  for (char** at = list; at != nullptr && *at != nullptr; ++at) {
    out.emplace_back(*at);
    std::free(*at);
  }
  std::free(list);
  return out;
}

void Server::say(PmixEvent event) {
  {
    std::lock_guard guard(lock_);
    events_.push_back(std::move(event));
  }
  ready_.signal();
}

std::vector<PmixEvent> Server::take() {
  ready_.drain();
  expire();
  std::lock_guard guard(lock_);
  return std::exchange(events_, {});
}

void Server::answer(std::unique_ptr<InfoList> info, pmix_info_cbfunc_t callback, void* data) {
  // A call that is dropped at the end of the library drops its answer, too.
  callbacks.post([info = std::shared_ptr<InfoList>(std::move(info)), callback, data] {
    callback(
        PMIX_SUCCESS, info->data(), info->size(), data,
        [](void* kept) { delete static_cast<std::shared_ptr<InfoList>*>(kept); },
        new std::shared_ptr<InfoList>(info));
  });
}

bool Server::answer(const std::vector<std::string>& keys, pmix_lookup_cbfunc_t callback, void* data,
                    bool partial) {
  std::vector<std::string> found;
  for (const std::string& key : keys)
    if (published_.count(key) != 0) found.push_back(key);
  if (found.size() != keys.size() && !(partial && !found.empty())) return false;
  std::size_t count = found.size();
  pmix_pdata_t* answers = nullptr;
  PMIX_PDATA_CREATE(answers, count);
  for (std::size_t i = 0; i < count; ++i) {
    Published& entry = published_[found[i]];
    answers[i].proc = entry.owner;
    std::strncpy(answers[i].key, found[i].c_str(), PMIX_MAX_KEYLEN);
    (void)PMIx_Value_xfer(&answers[i].value, &entry.value);
    if (entry.first_read_only) published_.erase(found[i]);
  }
  callbacks.post([=]() mutable {
    callback(PMIX_SUCCESS, answers, count, data);
    PMIX_PDATA_FREE(answers, count);
  });
  return true;
}

void Server::publish(const pmix_proc_t* owner, const pmix_info_t* info, std::size_t count) {
  std::lock_guard guard(published_lock_);
  bool first_read_only = false;
  for (std::size_t i = 0; i < count; ++i)
    if (PMIX_CHECK_KEY(&info[i], PMIX_PERSISTENCE))
      first_read_only = info[i].value.data.persist == PMIX_PERSIST_FIRST_READ;
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strncmp(info[i].key, "pmix.", 5) == 0) continue;
    Published entry{*owner, {}, first_read_only};
    (void)PMIx_Value_xfer(&entry.value, &info[i].value);
    published_[info[i].key] = entry;
    const char* text = info[i].value.type == PMIX_STRING ? info[i].value.data.string : "";
    say({PmixEvent::Kind::published, owner->rank, 0, info[i].key, text != nullptr ? text : ""});
  }
  for (auto at = waiting_.begin(); at != waiting_.end();)
    at = answer(at->keys, at->callback, at->data, false) ? waiting_.erase(at) : at + 1;
}

pmix_status_t Server::lookup(char** keys, const pmix_info_t* info, std::size_t count,
                             pmix_lookup_cbfunc_t callback, void* data) {
  std::lock_guard guard(published_lock_);
  std::vector<std::string> wanted;
  for (char** key = keys; key != nullptr && *key != nullptr; ++key) wanted.emplace_back(*key);
  bool wait = false;
  int seconds = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (PMIX_CHECK_KEY(&info[i], PMIX_WAIT)) wait = true;
    if (PMIX_CHECK_KEY(&info[i], PMIX_TIMEOUT) && info[i].value.type == PMIX_INT)
      seconds = info[i].value.data.integer;
  }
  if (answer(wanted, callback, data, !wait)) return PMIX_SUCCESS;
  if (!wait) return PMIX_ERR_NOT_FOUND;
  auto deadline = seconds > 0 ? std::chrono::steady_clock::now() + std::chrono::seconds(seconds)
                              : std::chrono::steady_clock::time_point::max();
  waiting_.push_back({std::move(wanted), callback, data, deadline});
  return PMIX_SUCCESS;
}

void Server::expire() {
  std::lock_guard guard(published_lock_);
  auto now = std::chrono::steady_clock::now();
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (at->deadline > now) {
      ++at;
      continue;
    }
    callbacks.post([callback = at->callback, data = at->data] {
      callback(PMIX_ERR_TIMEOUT, nullptr, 0, data);
    });
    at = waiting_.erase(at);
  }
}

void Server::unpublish(char** keys) {
  std::lock_guard guard(published_lock_);
  for (char** key = keys; key != nullptr && *key != nullptr; ++key) published_.erase(*key);
}

}  // namespace

Result<std::unique_ptr<PmixServer, EndPmixServer>> PmixServer::start(
    const std::string& job, const std::string& directory, const std::vector<PmixRank>& ranks,
    const std::vector<std::string>& apps) {
  if (the_server != nullptr)
    return Error{Code::busy, "start the PMIx server", "this process already has one", ""};
  auto server = std::unique_ptr<Server, EndPmixServer>(new Server);
  HOBBES_CHECK(server->begin(job, directory, ranks, apps));
  return std::unique_ptr<PmixServer, EndPmixServer>(server.release());
}

void EndPmixServer::operator()(PmixServer* server) const {
  auto ended = std::make_shared<std::promise<void>>();
  auto end = ended->get_future();
  std::thread([server, ended] {
    delete server;
    ended->set_value();
  }).detach();
  (void)end.wait_for(ending_limit);
}

}  // namespace hobbes

#include "hobbesd/operation_table.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/process.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

constexpr std::size_t operations_kept = 1000;

std::vector<std::string> environment_of(uid_t uid) {
  std::vector<std::string> out = {
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "HOBBES_RUN_DIR=" + run_directory(), "HOBBES_STATE_DIR=" + state_directory()};
  if (const passwd* user = ::getpwuid(uid)) {
    out.push_back("HOME=" + std::string(user->pw_dir));
    out.push_back("USER=" + std::string(user->pw_name));
  }
  return out;
}

std::string key_name(uid_t uid, const std::string& key) {
  return "volatile/key/" + std::to_string(uid) + "/" + key;
}
std::string operation_log(const std::string& name) {
  return run_directory() + "/logs/operation-" + name + ".log";
}

// By the user database: a token names a user, and a connection's own groups may have been given up
// since.
std::vector<gid_t> groups_of(uid_t uid, gid_t gid) {
  const passwd* user = ::getpwuid(uid);
  if (user == nullptr) return {};
  int count = 256;
  std::vector<gid_t> out(static_cast<std::size_t>(count));
  if (::getgrouplist(user->pw_name, gid, out.data(), &count) < 0) return {};
  out.resize(static_cast<std::size_t>(count));
  return out;
}

// The files that take a process into the control groups of `pid`.
Result<std::vector<std::string>> control_groups_of(pid_t pid) {
  std::vector<std::string> out;
  if (::geteuid() != 0) return out;
  HOBBES_TRY(layout, CgroupLayout::detect());
  HOBBES_TRY(text, Files::system().read("/proc/" + std::to_string(pid) + "/cgroup"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1),
                path = line.substr(second + 1);
    std::string mount = layout.v2;
    if (!controllers.empty()) {
      auto at = layout.v1.find(controllers.substr(0, controllers.find(',')));
      mount = at != layout.v1.end() ? at->second : "";
    }
    if (!mount.empty() && path.rfind("/..", 0) != 0) out.push_back(mount + path + "/cgroup.procs");
  }
  return out;
}

bool enter_group(const char* file) {
  int fd = ::open(file, O_WRONLY | O_CLOEXEC);
  return fd >= 0 && ::write(fd, "0", 1) == 1;
}

std::string beginning_of(const Fd& file) {
  std::string out(65536, '\0');
  ssize_t n = ::pread(file.get(), out.data(), out.size(), 0);
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return out;
}

// A file in our own folder that its user may read and append to.
Result<Fd> open_log(const std::string& path, uid_t uid, gid_t gid) {
  ::unlink(path.c_str());
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return os_error("open log " + path, errno);
  if (::geteuid() == 0 && ::fchown(fd.get(), uid, gid) != 0)
    return os_error("open log " + path, errno);
  return fd;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

// {"op":"operation.begin","verb":V,"root":R,"id":I,"key":K} and the fields of the verb.
Result<Reply> OperationTable::begin(Session& session, const Verb& verb, const hobbes_record* target,
                                    const Json& request) {
  std::string key = text_at(request, "key");
  if (!key.empty()) {
    if (auto earlier = nis_.document(key_name(session.peer.uid, key))) {
      if (earlier->value("request", Json()) != request)
        return Error{Code::invalid, "repeat a request",
                     "the idempotency key '" + key + "' was used for another one",
                     "use a new key for a new request"};
      if (auto document = nis_.document("volatile/operation/" + text_at(*earlier, "operation")))
        return Reply{*document, {}};
    }
  }
  HOBBES_CHECK(check_quota(session));
  Requester requester{session.peer.uid, session.peer.gid, {}, {}};
  // A batch job stays within its cpuset and control groups. Inside an enclave the grant is the
  // limit, and hobbes-run, which may end that enclave, is outside of it: nothing would keep what it
  // makes inside of a job.
  const bool runs_something = verb.name == "create" || verb.name == "run" || verb.name == "exec";
  if (session.inside != 0 && !session.step.empty() && runs_something)
    return Error{Code::unsupported, "begin operation '" + verb.name + "'",
                 "it comes from inside an enclave of a batch job's step, and would run outside of "
                 "the job",
                 "do it by a step of the job"};
  if (session.peer.pid != 0 && session.inside == 0) {
    requester.cpus = session.allowed;
    HOBBES_TRY(groups, control_groups_of(session.peer.pid));
    requester.groups = std::move(groups);
  }
  bool alive = target != nullptr &&
               ProcessId{target->body.enclave.pid, target->body.enclave.start_ticks}.alive();
  if (verb.makes_an_enclave() && !verb.has_result && alive)
    return Error{Code::exists, "make enclave '" + verb.id + "'", "the id is taken",
                 "choose another id"};
  return start(requester, verb, key.empty() ? Json() : Json{{"key", key}, {"request", request}}, 0);
}

// How many a user may have running at a time; each is a process of the node's.
Result<void> OperationTable::check_quota(const Session& session) const {
  std::uint64_t limit = policies_.of(session.peer.uid).operations, running = 0;
  for (const auto& [name, operation] : operations_)
    running += number_at(operation.document, "uid") == session.peer.uid ? 1 : 0;
  if (running < limit) return {};
  return Error{
      Code::exhausted, "begin an operation for user " + std::to_string(session.peer.uid),
      std::to_string(running) + " of its operations run, the quota is " + std::to_string(limit),
      "wait for one to end"};
}

Result<Reply> OperationTable::start(const Requester& requester, const Verb& verb,
                                    const Json& repeatable, std::uint64_t forgets) {
  std::string name = std::to_string(next_operation_++);
  Operation operation;
  operation.has_result = verb.has_result;
  operation.forgets = forgets;
  operation.document = {{"operation", name},    {"verb", verb.name}, {"state", "running"},
                        {"uid", requester.uid}, {"root", verb.root}, {"id", verb.id}};
  HOBBES_CHECK(make_directories(run_directory() + "/logs", 0711));
  std::string report = run_directory() + "/logs/operation-" + name + ".json";
  // The log of an enclave is its own, as long as it lives, whichever user asks; of a user's, nobody
  // else's is in the way.
  bool of_enclave = verb.makes_an_enclave() && !verb.has_result;
  std::string log =
      of_enclave ? enclave_log(requester.uid, verb.root, verb.id) : operation_log(name);
  operation.document["log"] = log;
  HOBBES_TRY(output, open_log(log, requester.uid, requester.gid));
  HOBBES_TRY(errors, open_log(report, requester.uid, requester.gid));

  std::vector<std::string> argv = {sibling_program("hobbes-run"), "--log", "/proc/self/fd/3",
                                   "--log-format", "json"};
  argv.insert(argv.end(), verb.words.begin(), verb.words.end());
  std::vector<std::string> environment = environment_of(requester.uid);
  auto argv_pointers = pointers_to(argv);
  auto environment_pointers = pointers_to(environment);
  bool drop = ::geteuid() == 0 && requester.uid != 0;
  std::vector<gid_t> groups = groups_of(requester.uid, requester.gid);
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (unsigned cpu : requester.cpus.members()) CPU_SET(cpu, &cpus);

  Transition transition;
  if (!repeatable.is_null()) {
    operation.document["key"] = repeatable["key"];
    transition.put_document(key_name(requester.uid, text_at(repeatable, "key")),
                            {{"request", repeatable["request"]}, {"operation", name}});
  }
  transition.put_document("volatile/operation/" + name, operation.document);
  HOBBES_CHECK(nis_.commit(transition));

  pid_t child = ::fork();
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::setsid();
    int null = ::open("/dev/null", O_RDONLY);
    bool good = ::dup2(null, 0) == 0 && ::dup2(output.get(), 1) == 1 &&
                ::dup2(output.get(), 2) == 2 && (errors.get() == 3 || ::dup2(errors.get(), 3) == 3);
    if (errors.get() == 3) ::fcntl(3, F_SETFD, 0);
    // Nothing else of hobbesd's, whatever forgot to say so.
    good = good && ::syscall(SYS_close_range, 4, ~0U, 0) == 0;
    for (const std::string& group : requester.groups) good = good && enter_group(group.c_str());
    if (!requester.cpus.empty()) good = good && ::sched_setaffinity(0, sizeof cpus, &cpus) == 0;
    if (good && drop)
      good = ::setgroups(groups.size(), groups.data()) == 0 &&
             ::setresgid(requester.gid, requester.gid, requester.gid) == 0 &&
             ::setresuid(requester.uid, requester.uid, requester.uid) == 0;
    if (good) ::execve(argv_pointers[0], argv_pointers.data(), environment_pointers.data());
    ::_exit(127);
  }
  if (child < 0) return os_error("start hobbes-run", errno);
  operation.pid = child;
  operation.report = std::move(errors);
  operation.output = std::move(output);
  operation.pidfd = open_pidfd(child);
  HOBBES_CHECK(loop_.watch(operation.pidfd.get(), [this, name] { ended(name); }));
  Json document = operation.document;
  operations_.emplace(name, std::move(operation));
  return Reply{document, {}};
}

void OperationTable::ended(const std::string& name) {
  auto at = operations_.find(name);
  if (at == operations_.end()) return;
  Operation& operation = at->second;
  loop_.unwatch(operation.pidfd.get());
  int status = 0;
  ::waitpid(operation.pid, &status, 0);
  Json document = operation.document;
  document["state"] = status == 0 ? "succeeded" : "failed";
  document["exitCode"] = exit_code_of(status);
  if (status == 0 && operation.has_result)
    document["result"] = parse_json(beginning_of(operation.output), "result").value_or(Json());
  if (status != 0) {
    std::string said = beginning_of(operation.report), last;
    for (std::size_t begin = 0; begin < said.size();) {
      std::size_t end = std::min(said.find('\n', begin), said.size());
      if (end > begin) last = said.substr(begin, end - begin);
      begin = end + 1;
    }
    Json message = parse_json(last, "log").value_or(Json::object());
    document["error"] =
        message.contains("error")
            ? message["error"]
            : to_json(Error{Code::os, text_at(document, "verb"), describe_wait_status(status), ""});
  }
  ::unlink((run_directory() + "/logs/operation-" + name + ".json").c_str());
  Transition transition;
  transition.put_document("volatile/operation/" + name, document);
  forget(std::to_string(next_operation_ > operations_kept ? next_operation_ - operations_kept : 0),
         transition);
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  // A clean-up that failed leaves a record of something that no longer exists; say so and keep it
  // for a person to see.
  if (status != 0 && text_at(document, "verb") == "delete")
    spdlog::error("operation {}: {}", name, to_text(document));
  std::uint64_t forgets = status == 0 ? operation.forgets : 0;
  operations_.erase(at);
  if (forgets != 0) cleaned_up_(forgets);
}

// Its output and the key that names it go with it.
void OperationTable::forget(const std::string& name, Transition& transition) {
  auto document = nis_.document("volatile/operation/" + name);
  if (!document || text_at(*document, "state") == "running") return;
  transition.erase_document("volatile/operation/" + name);
  std::string key = text_at(*document, "key");
  if (!key.empty())
    transition.erase_document(key_name(static_cast<uid_t>(number_at(*document, "uid")), key));
  ::unlink(operation_log(name).c_str());
}

Result<Reply> OperationTable::get(Session& session, const Json& request) {
  auto document = nis_.document("volatile/operation/" + text_at(request, "operation"));
  if (!document || (!session.privileged && number_at(*document, "uid") != session.peer.uid))
    return Error{Code::not_found, "find operation " + text_at(request, "operation"),
                 "there is no such operation", ""};
  return Reply{*document, {}};
}

bool OperationTable::is_of(pid_t pid) const {
  for (const auto& [name, operation] : operations_)
    if (operation.pid == pid) return true;
  return false;
}

Result<void> OperationTable::adopt() {
  for (const std::string& name : nis_.document_names("volatile/operation/")) {
    auto document = nis_.document(name);
    if (!document) continue;
    next_operation_ =
        std::max(next_operation_, static_cast<std::uint64_t>(std::strtoull(
                                      text_at(*document, "operation").c_str(), nullptr, 10)) +
                                      1);
    if (text_at(*document, "state") != "running") continue;
    (*document)["state"] = "failed";
    (*document)["error"] =
        to_json(Error{Code::unavailable, text_at(*document, "verb"),
                      "hobbesd was restarted meanwhile", "see the enclave's state"});
    Transition transition;
    transition.put_document(name, *document);
    HOBBES_CHECK(nis_.commit(transition));
  }
  return {};
}

}  // namespace hobbes

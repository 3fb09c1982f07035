// Verbs that take time, done by hobbes-run with the requester's own rights: hobbesd lends resources, never its privilege.
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "hobbesd/manager.h"

namespace hobbes {
namespace {

constexpr std::size_t operations_kept = 1000;

std::vector<std::string> environment_of(uid_t uid) {
  std::vector<std::string> out = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOBBES_RUN_DIR=" + run_directory(),
                                  "HOBBES_STATE_DIR=" + state_directory()};
  if (const passwd* user = ::getpwuid(uid)) {
    out.push_back("HOME=" + std::string(user->pw_dir));
    out.push_back("USER=" + std::string(user->pw_name));
  }
  return out;
}

// A file in our own folder that its user may read and append to.
Result<Fd> open_log(const std::string& path, uid_t uid, gid_t gid) {
  ::unlink(path.c_str());
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return os_error("open log " + path, errno);
  if (::geteuid() == 0 && ::fchown(fd.get(), uid, gid) != 0) return os_error("open log " + path, errno);
  return fd;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

// {"op":"operation.begin","verb":V,"arguments":[...],"root":R,"id":I,"key":K}
Result<Reply> Manager::begin_operation(Session& session, const Json& request) {
  std::string verb = text_at(request, "verb"), id = text_at(request, "id");
  std::string root = text_at(request, "root", default_root(session.peer.uid));
  std::string key = text_at(request, "key");
  const hobbes_record* target = nis_->by_name(HOBBES_ENCLAVE, hash_of(root), id);
  HOBBES_CHECK(check_grant(session, target != nullptr ? target->id : 0));
  if (!key.empty()) {
    std::string remembered = "volatile/key/" + std::to_string(session.peer.uid) + "/" + key;
    if (auto earlier = nis_->document(remembered)) {
      if (earlier->value("request", Json()) != request)
        return Error{Code::invalid, "repeat a request", "the idempotency key '" + key + "' was used for another one",
                     "use a new key for a new request"};
      if (auto document = nis_->document("volatile/operation/" + text_at(*earlier, "operation"))) return Reply{*document, {}};
    }
  }
  std::string name = std::to_string(next_operation_++);
  Operation operation;
  operation.document = {{"operation", name}, {"verb", verb}, {"state", "running"}, {"uid", session.peer.uid}, {"root", root}, {"id", id}};
  HOBBES_CHECK(make_directories(run_directory() + "/logs", 0711));
  std::string report = run_directory() + "/logs/operation-" + name + ".json";
  std::string log = verb == "create" || verb == "run" ? run_directory() + "/logs/" + hex(hash_of(root)) + "-" + id + ".log"
                                                      : run_directory() + "/logs/operation-" + name + ".log";
  if (id.find('/') != std::string::npos) return Error{Code::invalid, "begin an operation", "the id has a slash", ""};
  operation.document["log"] = log;
  if (verb == "create" || verb == "run") {  // the log of an enclave is its own, as long as it lives and whoever asks
    struct stat old {};
    if (session.peer.uid != 0 && ::lstat(log.c_str(), &old) == 0 && old.st_uid != session.peer.uid)
      return Error{Code::denied, "make enclave '" + id + "'", "user " + std::to_string(old.st_uid) + " has a log of that name",
                   "choose another id"};
    if (target != nullptr && ProcessId{target->body.enclave.pid, target->body.enclave.start_ticks}.alive())
      return Error{Code::exists, "make enclave '" + id + "'", "the id is taken", "choose another id"};
  }
  HOBBES_TRY(output, open_log(log, session.peer.uid, session.peer.gid));
  HOBBES_TRY(errors, open_log(report, session.peer.uid, session.peer.gid));

  std::vector<std::string> argv = {sibling_program("hobbes-run"), "--log", "/proc/self/fd/3", "--log-format", "json"};
  for (const Json& one : request.value("arguments", Json::array()))
    if (one.is_string()) argv.push_back(one.get<std::string>());
  std::vector<std::string> environment = environment_of(session.peer.uid);
  auto argv_pointers = pointers_to(argv);
  auto environment_pointers = pointers_to(environment);
  bool drop = ::geteuid() == 0 && session.peer.uid != 0;
  std::string user;
  if (const passwd* entry = drop ? ::getpwuid(session.peer.uid) : nullptr) user = entry->pw_name;

  Transition transition;
  transition.put_document("volatile/operation/" + name, operation.document);
  if (!key.empty())
    transition.put_document("volatile/key/" + std::to_string(session.peer.uid) + "/" + key, {{"request", request}, {"operation", name}});
  HOBBES_CHECK(nis_->commit(transition));

  pid_t child = ::fork();
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::setsid();
    int null = ::open("/dev/null", O_RDONLY);
    bool good = ::dup2(null, 0) == 0 && ::dup2(output.get(), 1) == 1 && ::dup2(output.get(), 2) == 2 &&
                (errors.get() == 3 || ::dup2(errors.get(), 3) == 3);
    if (errors.get() == 3) ::fcntl(3, F_SETFD, 0);
    if (good && drop)
      good = ((user.empty() ? ::setgroups(0, nullptr) : ::initgroups(user.c_str(), session.peer.gid)) == 0) &&
             ::setresgid(session.peer.gid, session.peer.gid, session.peer.gid) == 0 &&
             ::setresuid(session.peer.uid, session.peer.uid, session.peer.uid) == 0;
    if (good) ::execve(argv_pointers[0], argv_pointers.data(), environment_pointers.data());
    ::_exit(127);
  }
  if (child < 0) return os_error("start hobbes-run", errno);
  operation.pid = child;
  operation.key = key;
  operation.output = std::move(errors);
  operation.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  HOBBES_CHECK(loop_.watch(operation.pidfd.get(), [this, name] { operation_ended(name); }));
  Json document = operation.document;
  operations_.emplace(name, std::move(operation));
  return Reply{document, {}};
}

void Manager::operation_ended(const std::string& name) {
  auto at = operations_.find(name);
  if (at == operations_.end()) return;
  Operation& operation = at->second;
  loop_.unwatch(operation.pidfd.get());
  int status = 0;
  ::waitpid(operation.pid, &status, 0);
  Json document = operation.document;
  document["state"] = status == 0 ? "succeeded" : "failed";
  document["exitCode"] = exit_code_of(status);
  if (status != 0) {
    std::string said(65536, '\0');
    ssize_t n = ::pread(operation.output.get(), said.data(), said.size(), 0);
    said.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    std::string last;
    for (std::size_t begin = 0; begin < said.size();) {
      std::size_t end = std::min(said.find('\n', begin), said.size());
      if (end > begin) last = said.substr(begin, end - begin);
      begin = end + 1;
    }
    Json message = parse_json(last, "log").value_or(Json::object());
    document["error"] = message.contains("error") ? message["error"]
                                                  : to_json(Error{Code::os, text_at(document, "verb"), describe_wait_status(status), ""});
  }
  ::unlink((run_directory() + "/logs/operation-" + name + ".json").c_str());
  if (text_at(document, "log").find("/operation-") != std::string::npos) ::unlink(text_at(document, "log").c_str());
  Transition transition;
  transition.put_document("volatile/operation/" + name, document);
  std::string old = std::to_string(next_operation_ > operations_kept ? next_operation_ - operations_kept : 0);
  transition.erase_document("volatile/operation/" + old);
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
  // A clean-up that failed leaves a record of something that no longer exists; say so and keep it for a person to see.
  if (status != 0 && text_at(document, "verb") == "delete") spdlog::error("operation {}: {}", name, to_text(document));
  std::uint64_t forgets = status == 0 ? operation.forgets : 0;
  operations_.erase(at);
  if (forgets != 0) forget(forgets);
}

Result<Reply> Manager::operation(Session& session, const Json& request) {
  auto document = nis_->document("volatile/operation/" + text_at(request, "operation"));
  if (!document || (session.peer.uid != 0 && number_at(*document, "uid") != session.peer.uid))
    return Error{Code::not_found, "find operation " + text_at(request, "operation"), "there is no such operation", ""};
  return Reply{*document, {}};
}

}  // namespace hobbes

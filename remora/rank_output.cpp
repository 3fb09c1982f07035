#include "remora/rank_output.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "core/file.h"

namespace hobbes {
namespace {

constexpr std::size_t longest_line = 65536;  // one that never ends must not grow without bound

// "12:34:56.789".
std::string time_of_day() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm local{};
  ::localtime_r(&now.tv_sec, &local);
  char text[32];
  std::size_t size = std::strftime(text, sizeof text, "%H:%M:%S", &local);
  std::snprintf(text + size, sizeof text - size, ".%03ld", now.tv_nsec / 1'000'000);
  return text;
}

}  // namespace

RankOutput::RankOutput(EventLoop& loop, Options options, std::function<void(const Error&)> failed)
    : loop_(loop),
      options_(std::move(options)),
      failed_(std::move(failed)),
      out_(STDOUT_FILENO),
      err_(STDERR_FILENO) {}

RankOutput::~RankOutput() {
  for (auto& [rank, streams] : streams_)
    for (Stream& stream : streams)
      if (stream.fd) loop_.unwatch(stream.fd.get());
}

Result<std::array<Fd, 2>> RankOutput::open(const Rank& rank) {
  std::array<Stream, 2> streams;
  std::array<Fd, 2> ends;
  const std::string folder = options_.folder.empty() ? ""
                                                     : options_.folder + "/" + rank.app_name + "/" +
                                                           std::to_string(rank.app_rank);
  if (!folder.empty()) HOBBES_CHECK(make_directories(folder, 0755));
  for (std::size_t i = 0; i < 2; ++i) {
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) return os_error("make pipes", errno);
    streams[i].fd.reset(pipe[0]);
    ends[i].reset(pipe[1]);
    ::fcntl(pipe[0], F_SETFL, O_NONBLOCK);
    if (options_.prefix) streams[i].prefix = "[" + rank.name() + "] ";
    streams[i].rank = rank.name();
    streams[i].to = i == 0 ? &out_ : &err_;
    if (folder.empty()) continue;
    const std::string file = folder + (i == 0 ? "/stdout" : "/stderr");
    streams[i].copy.reset(
        ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644));
    if (!streams[i].copy) return os_error("write " + file, errno);
  }
  auto& kept = streams_[rank.global] = std::move(streams);
  for (Stream& stream : kept)
    HOBBES_CHECK(loop_.watch(stream.fd.get(), held_back_ ? 0 : static_cast<std::uint32_t>(EPOLLIN),
                             [this, &stream](std::uint32_t) { read(stream); }));
  return ends;
}

void RankOutput::finish(const Rank& rank) {
  auto found = streams_.find(rank.global);
  if (found == streams_.end()) return;
  for (Stream& stream : found->second) {
    for (int round = 0; round < 64 && stream.fd; ++round) read(stream);
    take_lines(stream, true);
  }
}

void RankOutput::say(const std::string& line) {
  err_.append(line + "\n");
  (void)err_.flush_some();
}

void RankOutput::read(Stream& stream) {
  char chunk[65536];
  ssize_t n = ::read(stream.fd.get(), chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    const std::string_view text(chunk, static_cast<std::size_t>(n));
    stream.pending.append(text);
    if (stream.copy)
      if (auto copied = write_all(stream.copy.get(), text, "the output of " + stream.rank);
          !copied) {
        stream.copy.reset();
        failed_(copied.error());
      }
  }
  take_lines(stream, n <= 0);
  if (n > 0) return;
  loop_.unwatch(stream.fd.get());
  stream.fd.reset();
}

void RankOutput::take_lines(Stream& stream, bool everything) {
  const std::string prefix = (options_.timestamps ? time_of_day() + " " : "") + stream.prefix;
  std::string text;
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = stream.pending.find('\n', begin)) != std::string::npos;
       begin = end + 1)
    text += prefix + stream.pending.substr(begin, end - begin + 1);
  stream.pending.erase(0, begin);
  if ((everything || stream.pending.size() > longest_line) && !stream.pending.empty()) {
    text += prefix + stream.pending + "\n";
    stream.pending.clear();
  }
  stream.to->append(text);
}

void RankOutput::flush() {
  for (OutputStream* stream : {&out_, &err_})
    if (auto written = stream->flush_some(); !written) failed_(written.error());
  hold_back(out_.full() || err_.full());
}

void RankOutput::hold_back(bool held) {
  if (held == held_back_) return;
  held_back_ = held;
  for (auto& [rank, streams] : streams_)
    for (Stream& stream : streams)
      if (stream.fd)
        (void)loop_.change(stream.fd.get(), held ? 0 : static_cast<std::uint32_t>(EPOLLIN));
}

}  // namespace hobbes

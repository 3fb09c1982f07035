// What the processes of a composition print, line by line, on the launcher's own streams and in
// files.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <string>

#include "core/event_loop.h"
#include "core/standard_streams.h"
#include "remora/rank.h"

namespace hobbes {

/// Nobody waits for a reader here: while it is slow the pipes fill up, and who prints waits.
/// One thread.
class RankOutput {
 public:
  struct Options {
    bool prefix = true;       ///< "[app:rank] " before each line
    bool timestamps = false;  ///< the time before that
    std::string folder;       ///< also gets each process's output, as APP/RANK/stdout; empty: none
  };
  /// `failed` is called when a text cannot be written, once for each way that it takes. `loop`
  /// outlives this.
  RankOutput(EventLoop& loop, Options options, std::function<void(const Error&)> failed);
  ~RankOutput();
  RankOutput(const RankOutput&) = delete;
  RankOutput& operator=(const RankOutput&) = delete;

  /// Two pipes for a process; their other ends, which become its standard output and standard
  /// error. Errors: Code::os.
  Result<std::array<Fd, 2>> open(const Rank& rank);
  /// The process has ended: what is in its pipes is all that it has printed.
  void finish(const Rank& rank);
  /// A line of the launcher's own, on standard error.
  void say(const std::string& line);
  /// Writes what there is room for.
  void flush();
  [[nodiscard]] bool pending() const { return out_.pending() || err_.pending(); }

 private:
  struct Stream {
    Fd fd, copy;          // its end of the pipe; the file that also gets it
    std::string pending;  // a line not yet ended
    std::string prefix, rank;
    OutputStream* to = nullptr;
  };
  void read(Stream& stream);
  void take_lines(Stream& stream, bool everything);
  void hold_back(bool held);

  EventLoop& loop_;
  Options options_;
  std::function<void(const Error&)> failed_;
  OutputStream out_, err_;
  std::map<unsigned, std::array<Stream, 2>> streams_;  // by global number
  bool held_back_ = false;
};

}  // namespace hobbes

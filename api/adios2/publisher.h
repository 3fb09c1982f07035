// The writers' end of a stream: which steps are there, and which readers still need them. One for
// all ranks of the writers, in the first of them.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "format.h"
#include "hobbes.h"

namespace hobbes::adios {

/// Called by one thread; a thread of its own accepts readers and takes what they send. A reader
/// that ends gives back what it held. Throws std::runtime_error.
class Publisher {
 public:
  struct Options {
    unsigned mode = 0600;   ///< who may read
    std::size_t queue = 0;  ///< steps that may be held at once; 0: any number
    bool discard = false;   ///< a step that finds the queue full is not published
  };
  Publisher(const std::string& name, const Options& options);
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  /// Waits until so many readers are there. False: the time was over.
  bool wait_for_readers(std::size_t count, std::chrono::milliseconds timeout);
  /// Waits for room in the queue, or finds none. False: the step is to be discarded.
  bool has_room();
  /// Tells all readers. Without readers nobody holds the step.
  void publish(std::uint64_t number, const Place& description);
  [[nodiscard]] std::set<std::uint64_t> held();
  /// Tells the readers that there will be no more, and waits until they need nothing any more.
  /// False: the time was over.
  bool end(std::chrono::milliseconds timeout);

 private:
  struct Reader {
    hobbes_channel* channel = nullptr;
    std::set<std::uint64_t> holds;
    std::deque<Message> unsent;
    bool gone = false;
  };
  void serve();
  void accept_all();
  void receive_from(Reader& reader);
  void send_to(Reader& reader, const Message& message);
  void flush(Reader& reader);
  void remove_gone();
  [[nodiscard]] std::set<std::uint64_t> held_locked() const;
  void wake() const;

  Options options_;
  hobbes_listener* listener_ = nullptr;
  int wake_ = -1;
  std::mutex lock_;
  std::condition_variable changed_;
  std::list<Reader> readers_;
  bool stopping_ = false, ended_ = false;
  std::thread thread_;
};

}  // namespace hobbes::adios

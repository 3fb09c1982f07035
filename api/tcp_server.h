// A server of httplib that lets a browser's connections come all at once: httplib listens with a
// backlog of 5, and one more connection waits a second for its next try.
#pragma once
#include <httplib.h>
#include <sys/socket.h>

namespace hobbes {

/// `Base` is httplib::Server or httplib::SSLServer.
template <class Base>
class TcpServer : public Base {
 public:
  using Base::Base;
  /// Called after a bind, which listens already.
  void raise_backlog() { (void)::listen(this->svr_sock_, backlog); }

 private:
  static constexpr int backlog = 1024;
};

}  // namespace hobbes

#include "remora/guest_pmix.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <optional>

#include "core/byte_relay.h"
#include "enclave/drivers/palacios/driver.h"

namespace hobbes {
namespace {

// Of "PMIX_SERVER_URI41=job.0;tcp4://127.0.0.1:40123": where the port begins, and the port.
struct ServerPort {
  std::size_t at = 0;
  std::uint16_t number = 0;
};

std::optional<ServerPort> port_in(const std::string& entry) {
  constexpr std::string_view host = "tcp4://127.0.0.1:";
  const std::size_t found = entry.find(host);
  if (entry.rfind("PMIX_SERVER_URI", 0) != 0 || found == std::string::npos) return std::nullopt;
  ServerPort out{found + host.size(), 0};
  const char* end = entry.data() + entry.size();
  auto [rest, error] = std::from_chars(entry.data() + out.at, end, out.number);
  if (error != std::errc() || rest != end) return std::nullopt;
  return out;
}

bool connect_to_loopback(const Fd& socket, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

Result<std::unique_ptr<GuestPmix>> GuestPmix::open(const EnclaveRecord& machine,
                                                   std::vector<std::string>& environment) {
  std::uint16_t server = 0;
  for (const std::string& entry : environment)
    if (auto port = port_in(entry)) server = port->number;
  if (server == 0)
    return Error{Code::unsupported, "bring PMIx into enclave '" + machine.id + "'",
                 "its server does not listen on this machine's loopback by IPv4",
                 "see PMIX_MCA_ptl_tcp_* in the environment"};
  HOBBES_TRY(forwarded, forward_port(machine));
  for (std::string& entry : environment)
    if (auto port = port_in(entry))
      entry.replace(port->at, std::string::npos, std::to_string(forwarded.port));
  return std::unique_ptr<GuestPmix>(new GuestPmix(std::move(forwarded.stream), server));
}

GuestPmix::GuestPmix(Fd stream, std::uint16_t port)
    : stream_(std::move(stream)), server_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  relay_ = std::thread([this, port] {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    // The server is connected to when the rank is: it gives newcomers little time to say who they
    // are.
    pollfd speaks{stream_.get(), POLLIN, 0};
    while (::poll(&speaks, 1, -1) < 0 && errno == EINTR) {
    }
    if (server_ && connect_to_loopback(server_, port)) relay_bytes(stream_, server_);
    for (const Fd* end : {&stream_, &server_}) ::shutdown(end->get(), SHUT_RDWR);
  });
}

GuestPmix::~GuestPmix() {
  for (const Fd* end : {&stream_, &server_}) ::shutdown(end->get(), SHUT_RDWR);
  relay_.join();
}

}  // namespace hobbes

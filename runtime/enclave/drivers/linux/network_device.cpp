#include "enclave/drivers/linux/network_device.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace hobbes {
namespace {

// A request: its header, the fixed part of its kind, and attributes.
template <class Body>
std::vector<char> message(std::uint16_t type, const Body& body) {
  std::vector<char> out(NLMSG_LENGTH(sizeof body));
  nlmsghdr header{};
  header.nlmsg_type = type;
  std::memcpy(out.data(), &header, sizeof header);
  std::memcpy(out.data() + NLMSG_HDRLEN, &body, sizeof body);
  return out;
}

void add_attribute(std::vector<char>& to, unsigned short type, const void* data, std::size_t size) {
  to.resize(NLMSG_ALIGN(to.size()));
  rtattr attribute{static_cast<unsigned short>(RTA_LENGTH(size)), type};
  const std::size_t at = to.size();
  to.resize(at + RTA_SPACE(size));
  std::memcpy(to.data() + at, &attribute, sizeof attribute);
  std::memcpy(to.data() + at + RTA_LENGTH(0), data, size);
}

ifinfomsg link_of(unsigned index) {
  ifinfomsg out{};
  out.ifi_index = static_cast<int>(index);
  return out;
}

ifaddrmsg address_of(const Rtnetlink::Address& address) {
  ifaddrmsg out{};
  std::memcpy(&out, address.data() + NLMSG_HDRLEN, sizeof out);
  return out;
}

Error refusal(const char* attempt, int error) {
  Error out = os_error(attempt, error);
  if (error == ENODEV) out.code = Code::not_found;
  return out;
}

// Calls `visit` with each attribute behind the fixed part of a message.
template <class Visit>
void each_attribute(const std::vector<char>& in, std::size_t fixed, Visit visit) {
  for (std::size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(fixed); at + sizeof(rtattr) <= in.size();) {
    rtattr attribute{};
    std::memcpy(&attribute, in.data() + at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || at + attribute.rta_len > in.size()) return;
    visit(attribute.rta_type, in.data() + at + RTA_LENGTH(0), attribute.rta_len - RTA_LENGTH(0));
    at += RTA_ALIGN(attribute.rta_len);
  }
}

}  // namespace

Result<Rtnetlink> Rtnetlink::open(const Fd* network_namespace) {
  auto make = []() -> Result<Rtnetlink> {
    Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    timeval patience{5, 0};  // the kernel answers at once
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
      return os_error("ask the kernel about network devices", errno);
    return Rtnetlink(std::move(socket));
  };
  if (network_namespace == nullptr) return make();
  Fd own(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!own || ::setns(network_namespace->get(), CLONE_NEWNET) != 0)
    return os_error("look into a network namespace", errno);
  auto made = make();
  if (::setns(own.get(), CLONE_NEWNET) != 0)
    return os_error("return to the node's network namespace", errno);
  return made;
}

Result<std::vector<Rtnetlink::Address>> Rtnetlink::ask(std::vector<char> request, bool dump) {
  nlmsghdr header{};
  std::memcpy(&header, request.data(), sizeof header);
  header.nlmsg_len = static_cast<std::uint32_t>(request.size());
  header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | (dump ? NLM_F_DUMP : NLM_F_ACK));
  header.nlmsg_seq = ++sequence_;
  std::memcpy(request.data(), &header, sizeof header);
  constexpr const char* attempt = "ask the kernel about network devices";
  if (::send(socket_.get(), request.data(), request.size(), 0) < 0) return os_error(attempt, errno);
  std::vector<std::vector<char>> out;
  for (std::vector<char> buffer(1 << 16);;) {
    ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error(attempt, errno);
    for (std::size_t at = 0, size = static_cast<std::size_t>(n); at + sizeof(nlmsghdr) <= size;) {
      nlmsghdr answer{};
      std::memcpy(&answer, buffer.data() + at, sizeof answer);
      if (answer.nlmsg_len < sizeof answer || at + answer.nlmsg_len > size)
        return Error{Code::corrupt, attempt, "the kernel's answer is cut", ""};
      if (answer.nlmsg_seq == sequence_) {
        if (answer.nlmsg_type == NLMSG_DONE) return out;
        if (answer.nlmsg_type == NLMSG_ERROR) {
          int error = 0;
          std::memcpy(&error, buffer.data() + at + NLMSG_HDRLEN, sizeof error);
          if (error != 0) return refusal(attempt, -error);
          return out;
        }
        out.emplace_back(buffer.begin() + static_cast<std::ptrdiff_t>(at),
                         buffer.begin() + static_cast<std::ptrdiff_t>(at + answer.nlmsg_len));
      }
      at += NLMSG_ALIGN(answer.nlmsg_len);
    }
  }
}

Result<unsigned> Rtnetlink::index_of(const std::string& device) {
  auto request = message(RTM_GETLINK, link_of(0));
  add_attribute(request, IFLA_IFNAME, device.c_str(), device.size() + 1);
  auto answer = ask(std::move(request), false);
  if (answer && answer->empty()) answer = refusal("tell a device", ENODEV);
  if (!answer) {
    Error error = std::move(answer).error().within("find network device " + device);
    if (error.code == Code::not_found) error.remedy = "see `ip link` for the devices there are";
    return error;
  }
  ifinfomsg link{};
  std::memcpy(&link, answer->front().data() + NLMSG_HDRLEN, sizeof link);
  return static_cast<unsigned>(link.ifi_index);
}

Result<bool> Rtnetlink::is_up(unsigned index) {
  HOBBES_TRY(answer, ask(message(RTM_GETLINK, link_of(index)), false));
  ifinfomsg link{};
  if (!answer.empty()) std::memcpy(&link, answer.front().data() + NLMSG_HDRLEN, sizeof link);
  return (link.ifi_flags & IFF_UP) != 0;
}

Result<std::vector<Rtnetlink::Address>> Rtnetlink::addresses(unsigned index) {
  HOBBES_TRY(all, ask(message(RTM_GETADDR, ifaddrmsg{}), true));
  std::erase_if(all, [&](const Address& address) {
    const ifaddrmsg info = address_of(address);
    return info.ifa_index != index || info.ifa_scope != RT_SCOPE_UNIVERSE ||
           (info.ifa_flags & IFA_F_PERMANENT) == 0;
  });
  return all;
}

Result<void> Rtnetlink::add_address(unsigned index, const Address& address) {
  ifaddrmsg info = address_of(address);
  info.ifa_index = index;
  auto request = message(RTM_NEWADDR, info);
  each_attribute(address, sizeof info,
                 [&](unsigned short type, const char* data, std::size_t size) {
                   if (type == IFA_LOCAL || type == IFA_ADDRESS || type == IFA_BROADCAST)
                     add_attribute(request, type, data, size);
                 });
  HOBBES_TRY(done, ask(std::move(request), false));
  (void)done;
  return {};
}

Result<void> Rtnetlink::set_up(unsigned index) {
  ifinfomsg link = link_of(index);
  link.ifi_flags = link.ifi_change = IFF_UP;
  HOBBES_TRY(done, ask(message(RTM_NEWLINK, link), false));
  (void)done;
  return {};
}

Result<void> Rtnetlink::move(unsigned index, const Fd& network_namespace, const std::string& name) {
  auto request = message(RTM_NEWLINK, link_of(index));
  const int fd = network_namespace.get();
  add_attribute(request, IFLA_NET_NS_FD, &fd, sizeof fd);
  add_attribute(request, IFLA_IFNAME, name.c_str(), name.size() + 1);
  HOBBES_TRY(done, ask(std::move(request), false));
  (void)done;
  return {};
}

Result<MovedDevices> MovedDevices::move(const std::map<std::string, std::string>& devices,
                                        const std::string& network_namespace) {
  Fd here(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)),
      there(::open(network_namespace.c_str(), O_RDONLY | O_CLOEXEC));
  if (!here || !there) return os_error("open the network namespace " + network_namespace, errno);
  HOBBES_TRY(ours, Rtnetlink::open(nullptr));
  HOBBES_TRY(theirs, Rtnetlink::open(&there));
  MovedDevices out(std::move(here), std::move(there), std::move(ours), std::move(theirs));
  for (const auto& [name, inside] : devices)
    if (auto moved = out.move_one(name, inside); !moved)
      return std::move(moved.error()).within("move network device " + name + " into the enclave");
  return out;
}

Result<void> MovedDevices::move_one(const std::string& name, const std::string& inside) {
  HOBBES_TRY(index, ours_.index_of(name));
  HOBBES_TRY(up, ours_.is_up(index));
  HOBBES_TRY(addresses, ours_.addresses(index));
  // The kernel moves first and renames then: with a name that is taken the device would be there
  // under the old one.
  if (theirs_.index_of(inside))
    return Error{Code::exists, "name it " + inside, "the enclave has a device of that name",
                 "give another name in linux.netDevices"};
  back_.push_back({name, inside, up});
  HOBBES_CHECK(ours_.move(index, there_, inside));
  HOBBES_TRY(arrived, theirs_.index_of(inside));
  for (const Rtnetlink::Address& address : addresses)
    HOBBES_CHECK(theirs_.add_address(arrived, address));
  return theirs_.set_up(arrived);
}

MovedDevices::~MovedDevices() {
  for (auto one = back_.rbegin(); one != back_.rend(); ++one) {
    auto index = theirs_.index_of(one->inside);
    if (!index) index = theirs_.index_of(one->name);
    if (!index) continue;  // it has not left
    auto addresses = theirs_.addresses(*index);
    if (!theirs_.move(*index, here_, one->name)) continue;
    auto returned = ours_.index_of(one->name);
    if (!returned) continue;
    if (addresses)
      for (const Rtnetlink::Address& address : *addresses)
        (void)ours_.add_address(*returned, address);
    if (one->up) (void)ours_.set_up(*returned);
  }
}

}  // namespace hobbes

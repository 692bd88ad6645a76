// Probes: sockets and network devices, without netlink.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernel/probe_list.h"
#include "kernel/probe_support.h"
#include "kernel/proc.h"
#include "kernel/uapi.h"

namespace stasis::probes {
namespace {

Fd socket_of(int family, int type) {
  return Fd(::socket(family, type | SOCK_CLOEXEC, 0));
}

int set_option(const Fd& socket, int level, int option, int value) {
  return ::setsockopt(socket.get(), level, option, &value, sizeof value);
}

struct Connection {
  Fd client;
  Fd server;
};

// A connection of this process to itself over loopback.
FeatureResult connect_loopback(Connection& out) {
  const Fd listener = socket_of(AF_INET, SOCK_STREAM);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), generic, bytes) < 0 || ::listen(listener.get(), 1) < 0 ||
      ::getsockname(listener.get(), generic, &bytes) < 0)
    return by_errno(-1, "cannot listen on loopback");
  out.client = socket_of(AF_INET, SOCK_STREAM);
  if (::connect(out.client.get(), generic, bytes) < 0) return by_errno(-1, "cannot connect over loopback");
  out.server.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return by_errno(out.server.get(), "cannot accept a connection over loopback");
}

}  // namespace

FeatureResult tun() {
  const Fd device(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!device) return by_errno(-1, "cannot open /dev/net/tun", "access to /dev/net/tun");
  unsigned flags = 0;
  if (::ioctl(device.get(), TUNGETFEATURES, &flags) < 0) return by_errno(-1, "TUN does not tell its features");
  ProcDir self(::getpid());
  const FdInfo info = parse_fdinfo(self.read(("fdinfo/" + std::to_string(device.get())).c_str()));
  return info.value("iff") ? supported() : missing("fdinfo does not tell the device of a TUN descriptor");
}

FeatureResult tun_ns() {
  const Fd device(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!device) return by_errno(-1, "cannot open /dev/net/tun", "access to /dev/net/tun");
  const Fd net(::ioctl(device.get(), uapi::siocgskns, 0));
  return by_errno(net.get(), "a TUN descriptor does not tell its network namespace", "CAP_NET_ADMIN");
}

FeatureResult sk_ns() {
  const Fd socket = socket_of(AF_UNIX, SOCK_DGRAM);
  const Fd net(::ioctl(socket.get(), uapi::siocgskns, 0));
  return by_errno(net.get(), "a socket does not tell its network namespace", "CAP_NET_ADMIN");
}

// An unbound socket has no file: ENOENT where the request is known.
FeatureResult sk_unix_file() {
  const Fd socket = socket_of(AF_UNIX, SOCK_STREAM);
  const Fd file(::ioctl(socket.get(), uapi::siocunixfile, 0));
  if (!file && errno == ENOENT) return supported();
  return by_errno(file.get(), "a unix socket does not give its file", "CAP_NET_ADMIN");
}

FeatureResult sockopt_buf_lock() {
  const Fd socket = socket_of(AF_UNIX, SOCK_STREAM);
  int value = 0;
  socklen_t bytes = sizeof value;
  return by_errno(::getsockopt(socket.get(), SOL_SOCKET, uapi::so_buf_lock, &value, &bytes),
                  "the kernel has no SO_BUF_LOCK");
}

FeatureResult ipv6_freebind() {
  constexpr int ipv6_freebind_option = 78;  // linux/in6.h, which cannot be included with netinet/in.h
  const Fd socket = socket_of(AF_INET6, SOCK_DGRAM);
  if (!socket) return by_errno(-1, "the kernel has no IPv6");
  return by_errno(set_option(socket, IPPROTO_IPV6, ipv6_freebind_option, 1), "the kernel has no IPV6_FREEBIND");
}

FeatureResult tcp_half_closed() {
  Connection connection;
  FeatureResult connected = connect_loopback(connection);
  if (!connected.supported) return connected;
  // Close with a reset: nothing stays behind in TIME_WAIT.
  const linger at_once{1, 0};
  for (const Fd* end : {&connection.client, &connection.server})
    ::setsockopt(end->get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  constexpr int repair_on = 1;
  constexpr int repair_off_without_probe = -1;
  if (set_option(connection.client, IPPROTO_TCP, TCP_REPAIR, repair_on) < 0)
    return by_errno(-1, "a connection cannot be put into repair mode", "CAP_NET_ADMIN");
  set_option(connection.client, IPPROTO_TCP, TCP_REPAIR, repair_off_without_probe);
  if (::shutdown(connection.client.get(), SHUT_WR) < 0) return by_errno(-1, "cannot close one side");
  const int result = set_option(connection.client, IPPROTO_TCP, TCP_REPAIR, repair_on);
  FeatureResult answer = by_errno(result, "a half closed connection cannot be put into repair mode");
  if (result == 0) set_option(connection.client, IPPROTO_TCP, TCP_REPAIR, repair_off_without_probe);
  return answer;
}

FeatureResult external_net_ns() {
  const Fd net(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!net) return by_errno(-1, "the kernel has no network namespaces");
  return in_child([&] {
    return by_errno(::setns(net.get(), CLONE_NEWNET), "a network namespace cannot be entered", "CAP_SYS_ADMIN");
  });
}

FeatureResult has_ipt_legacy() {
  const Fd socket = socket_of(AF_INET, SOCK_DGRAM);
  ipt_getinfo info{};
  std::strcpy(info.name, "filter");
  socklen_t bytes = sizeof info;
  return by_errno(::getsockopt(socket.get(), IPPROTO_IP, IPT_SO_GET_INFO, &info, &bytes),
                  "the kernel has no iptables filter table", "CAP_NET_ADMIN");
}

}  // namespace stasis::probes

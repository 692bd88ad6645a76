// Probes that ask the kernel over netlink.
// Before linux/netfilter.h: the kernel header then leaves out what glibc defines.
#include <netinet/in.h>

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/net_namespace.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <vector>

#include "kernel/probe_list.h"
#include "kernel/probe_support.h"

namespace stasis::probes {
namespace {

constexpr int kIflaNewIfindex = 49;         // 5.13
constexpr uint32_t kNftTableOwnerFlag = 2;  // 5.12

// One or more netlink messages in a row.
class Message {
 public:
  void begin(int type, int flags) {
    start_ = bytes_.size();
    append(nlmsghdr{0, static_cast<uint16_t>(type), static_cast<uint16_t>(NLM_F_REQUEST | flags), ++sequence_, 0});
    close();
  }
  template <class T>
  void header(const T& value) {
    append(value);
    close();
  }
  void attribute(int type, const void* data, size_t size) {
    append(nlattr{static_cast<uint16_t>(sizeof(nlattr) + size), static_cast<uint16_t>(type)});
    append_bytes(data, size);
    close();
  }
  template <class T>
  void attribute(int type, T value) {
    attribute(type, &value, sizeof value);
  }
  void text(int type, const char* value) { attribute(type, value, std::strlen(value) + 1); }
  // Everything added by `body` becomes the contents of the attribute.
  void nested(int type, const std::function<void()>& body) {
    const size_t at = bytes_.size();
    append(nlattr{0, static_cast<uint16_t>(type)});
    body();
    const auto length = static_cast<uint16_t>(bytes_.size() - at);
    std::memcpy(bytes_.data() + at, &length, sizeof length);
    close();
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  template <class T>
  void append(const T& value) {
    append_bytes(&value, sizeof value);
  }
  void append_bytes(const void* data, size_t size) {
    const auto* from = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  }
  void close() {
    const auto length = static_cast<uint32_t>(bytes_.size() - start_);
    std::memcpy(bytes_.data() + start_, &length, sizeof length);
  }

  std::vector<char> bytes_;
  size_t start_ = 0;
  uint32_t sequence_ = 0;
};

// Looks at one reply: true when the answer is complete, with `result` set (>= 0 or negative errno).
using Reader = std::function<bool(const nlmsghdr&, const char* payload, size_t size, long& result)>;

// The first int of an NLMSG_ERROR or NLMSG_DONE message is the status. sock_diag tells a missing handler only there.
long status_of(const char* payload, size_t size) {
  int status = 0;
  if (size >= sizeof status) std::memcpy(&status, payload, sizeof status);
  return status;
}

bool read_status(const nlmsghdr& header, const char* payload, size_t size, long& result) {
  if (header.nlmsg_type != NLMSG_ERROR && header.nlmsg_type != NLMSG_DONE) return false;
  result = status_of(payload, size);
  return true;
}

class Socket {
 public:
  explicit Socket(int protocol) : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)) {
    const timeval patience{2, 0};
    if (fd_) ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  // Sends, and reads until `reader` (or an error status) ends it.
  long ask(const Message& message, const Reader& reader = read_status) const {
    if (!fd_) return -EPROTONOSUPPORT;
    if (::send(fd_.get(), message.bytes().data(), message.bytes().size(), 0) < 0) return -errno;
    alignas(nlmsghdr) char buffer[32 * 1024];
    for (;;) {
      const ssize_t got = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return -errno;
      long result = 0;
      if (read_datagram(buffer, static_cast<size_t>(got), reader, result)) return result;
    }
  }

 private:
  static bool read_datagram(const char* data, size_t size, const Reader& reader, long& result) {
    while (size >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, data, sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > size) break;
      const char* payload = data + sizeof header;
      const size_t payload_size = header.nlmsg_len - sizeof header;
      if (reader(header, payload, payload_size, result)) return true;
      if (header.nlmsg_type == NLMSG_ERROR && status_of(payload, payload_size) < 0) {
        result = status_of(payload, payload_size);
        return true;
      }
      const size_t step = std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), size);
      data += step;
      size -= step;
    }
    return false;
  }

  Fd fd_;
};

// A device of `kind` in the current namespace; with `link_nsid` its peer belongs to that (unknown) namespace id.
long make_device(const Socket& route, const char* kind, bool with_link_nsid) {
  Message message;
  message.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  message.header(ifinfomsg{});
  message.text(IFLA_IFNAME, with_link_nsid ? "probe1" : "probe0");
  if (with_link_nsid) message.attribute(IFLA_LINK_NETNSID, int32_t{123456});
  message.nested(IFLA_LINKINFO, [&] { message.text(IFLA_INFO_KIND, kind); });
  return route.ask(message);
}

void nft_header(Message& message, int type, int flags, uint8_t family) {
  message.begin((NFNL_SUBSYS_NFTABLES << 8) | type, flags);
  message.header(nfgenmsg{family, NFNETLINK_V0, 0});
}

void nft_batch_edge(Message& message, int type) {
  message.begin(type, 0);
  message.header(nfgenmsg{AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)});
}

}  // namespace

FeatureResult net_diag_raw() {
  const Socket diag(NETLINK_SOCK_DIAG);
  Message message;
  message.begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
  inet_diag_req_v2 request{};
  request.sdiag_family = AF_INET;
  request.sdiag_protocol = IPPROTO_RAW;
  request.idiag_states = ~0u;
  message.header(request);
  return by_result(diag.ask(message), "sock_diag does not list raw sockets");
}

FeatureResult nsid() {
  const Fd net(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!net) return by_errno(-1, "the kernel has no network namespaces");
  const Socket route(NETLINK_ROUTE);
  Message message;
  message.begin(RTM_GETNSID, 0);
  message.header(rtgenmsg{AF_UNSPEC});
  message.attribute(NETNSA_FD, net.get());
  const long result = route.ask(message, [](const nlmsghdr& header, const char*, size_t, long& out) {
    out = 0;
    return header.nlmsg_type == RTM_NEWNSID;
  });
  return by_result(result, "the kernel does not tell ids of network namespaces", "CAP_NET_ADMIN");
}

// An unknown id must be refused; a kernel that does not know the attribute makes the device.
FeatureResult link_nsid() {
  return in_child([] {
    FeatureResult entered = enter_private_network();
    if (!entered.supported) return entered;
    const Socket route(NETLINK_ROUTE);
    for (const char* kind : {"dummy", "veth", "bridge", "ifb"}) {
      const long plain = make_device(route, kind, false);
      if (plain == -EPERM) return by_result(plain, "a device cannot be made", "CAP_NET_ADMIN");
      if (plain < 0) continue;
      return make_device(route, kind, true) == -EINVAL ? supported()
                                                       : missing("the kernel ignores the namespace of a device's peer");
    }
    return missing("cannot tell without a device kind to try it with (dummy, veth, bridge, ifb)");
  });
}

// Index 0 is out of the range of the attribute: refused where it is known, and no change of the device elsewhere.
FeatureResult newifindex() {
  const Socket route(NETLINK_ROUTE);
  Message message;
  message.begin(RTM_SETLINK, NLM_F_ACK);
  ifinfomsg loopback{};
  loopback.ifi_index = 1;
  message.header(loopback);
  message.attribute(kIflaNewIfindex, int32_t{0});
  const long result = route.ask(message);
  if (result == -ERANGE) return supported();
  if (result == 0) return missing("the kernel does not know IFLA_NEW_IFINDEX");
  return by_result(result, "the kernel does not answer about IFLA_NEW_IFINDEX", "CAP_NET_ADMIN");
}

FeatureResult nftables() {
  const Socket netfilter(NETLINK_NETFILTER);
  Message message;
  nft_header(message, NFT_MSG_GETGEN, 0, AF_UNSPEC);
  const long result = netfilter.ask(message, [](const nlmsghdr& header, const char*, size_t, long& out) {
    out = 0;
    return header.nlmsg_type == ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN);
  });
  return by_result(result, "the kernel has no nftables", "CAP_NET_ADMIN");
}

// The lock is a table that vanishes with its maker: it needs the owner flag.
FeatureResult network_lock_nftables() {
  return in_child([] {
    FeatureResult entered = enter_private_network();
    if (!entered.supported) return entered;
    const Socket netfilter(NETLINK_NETFILTER);
    Message message;
    nft_batch_edge(message, NFNL_MSG_BATCH_BEGIN);
    nft_header(message, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, NFPROTO_INET);
    message.text(NFTA_TABLE_NAME, "probe");
    message.attribute(NFTA_TABLE_FLAGS, htonl(kNftTableOwnerFlag));
    nft_batch_edge(message, NFNL_MSG_BATCH_END);
    return by_result(netfilter.ask(message), "nftables cannot make a table with an owner", "CAP_NET_ADMIN");
  });
}

}  // namespace stasis::probes

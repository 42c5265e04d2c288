#include <binade/dist/remote_shell.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include <binade/dist/socket.h>

namespace binade::dist {

std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else {
      word += c;
    }
  }
  return word + "'";
}

std::string shell_command(const std::string& folder, const Variables& variables,
                          const std::vector<std::string>& command) {
  std::string line = "cd " + quoted(folder) + " && exec env";
  for (const auto& [name, value] : variables) line += ' ' + quoted(name + '=' + value);
  for (const std::string& argument : command) line += ' ' + quoted(argument);
  return line;
}

std::vector<std::string> on_host(const std::string& host, const std::string& shell_command) {
  return {"ssh", "-n",
          "-o",  "BatchMode=yes",
          "-o",  "ConnectTimeout=20",
          "-o",  "ServerAliveInterval=10",
          "-o",  "ServerAliveCountMax=2",
          host,  shell_command};
}

std::string host_name() {
  char name[256] = "unknown";
  ::gethostname(name, sizeof name - 1);
  return name;
}

namespace {

struct Address {
  bool known = false;
  sockaddr_in value{};
};

// What ssh alone may know is not known here.
Address look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  Address address{true, {}};
  std::memcpy(&address.value, found->ai_addr, sizeof address.value);
  return address;
}

Socket datagram_socket() {
  return Socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

const sockaddr* plain(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

}  // namespace

bool is_this_host(const std::string& host) {
  if (host == host_name()) return true;
  const Address address = look_up(host);
  // Only an own address can be listened on.
  const Socket socket = datagram_socket();
  return address.known && socket &&
         ::bind(socket.get(), plain(address.value), sizeof address.value) == 0;
}

std::string address_towards(const std::string& host) {
  const size_t user = host.find('@');
  Address address = look_up(user == std::string::npos ? host : host.substr(user + 1));
  address.value.sin_port = htons(9);
  // Nothing is sent: the kernel only chooses the way.
  const Socket socket = datagram_socket();
  if (!address.known || !socket ||
      ::connect(socket.get(), plain(address.value), sizeof address.value) != 0)
    return host_name();
  sockaddr_in own{};
  socklen_t size = sizeof own;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size);
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &own.sin_addr, text, sizeof text);
  return text;
}

}  // namespace binade::dist

#include <binade/dist/remote_shell.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

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

bool is_this_host(const std::string& host) {
  return host == "localhost" || host.starts_with("127.") || host == host_name();
}

std::string address_towards(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  // ssh may know names that nobody else does; a user may be in front.
  const std::string name =
      host.substr(host.find('@') == std::string::npos ? 0 : host.find('@') + 1);
  addrinfo* found = nullptr;
  if (::getaddrinfo(name.c_str(), "9", &hints, &found) != 0) return host_name();
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  // Nothing is sent: the kernel only chooses the way.
  const Socket socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket || ::connect(socket.get(), found->ai_addr, found->ai_addrlen) != 0)
    return host_name();
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return text;
}

}  // namespace binade::dist

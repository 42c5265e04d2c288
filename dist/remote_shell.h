// INTERNAL. Command lines for a shell on another host.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace binade::dist {

using Variables = std::vector<std::pair<std::string, std::string>>;

// The text as one word of a POSIX shell's.
std::string quoted(const std::string& text);
// Runs the command in this folder, with these variables set.
std::string shell_command(const std::string& folder, const Variables& variables,
                          const std::vector<std::string>& command);
// What runs a shell's command on another host: ssh, which asks nobody for a password and notices
// a host that is silent for 20 s.
std::vector<std::string> on_host(const std::string& host, const std::string& shell_command);

std::string host_name();  // of this host
// Whether a name or address is this host's.
bool is_this_host(const std::string& host);
// The address that this host has towards another one; its name where that is no address's.
std::string address_towards(const std::string& host);

}  // namespace binade::dist

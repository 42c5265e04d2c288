#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>

namespace emulated {

namespace {

constexpr size_t kPage = 4096, kAlignment = 16;
constexpr unsigned char kPoison = 0xff, kMargin = 0xa5;

struct Block {
  char* pages;  // the first one cannot be touched, nor the last one
  size_t inner, bytes;
};

std::mutex mutex;
std::map<const char*, Block>& blocks() {
  static auto& all = *new std::map<const char*, Block>;
  return all;
}

// Whether these bytes hold the pattern; afterwards they do.
bool mend_margin(char* from, char* to) {
  const bool intact =
      std::all_of(from, to, [](char c) { return static_cast<unsigned char>(c) == kMargin; });
  if (!intact) std::fill(from, to, static_cast<char>(kMargin));
  return intact;
}

}  // namespace

void* allocate(size_t bytes) {
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t inner = (whole + kPage - 1) / kPage * kPage + (whole == 0 ? kPage : 0);
  void* const pages =
      mmap(nullptr, inner + 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::runtime_error("no memory for " + std::to_string(bytes));
  const Block block{static_cast<char*>(pages), inner, bytes};
  mprotect(block.pages, kPage, PROT_NONE);
  mprotect(block.pages + kPage + inner, kPage, PROT_NONE);
  const std::scoped_lock lock(mutex);
  static bool at_end = false;
  at_end = !at_end;
  char* const data = block.pages + kPage + (at_end ? inner - whole : 0);
  std::memset(block.pages + kPage, kMargin, inner);
  std::memset(data, kPoison, bytes);
  blocks()[data] = block;
  return data;
}

void release(void* data) {
  if (data == nullptr) return;
  const std::scoped_lock lock(mutex);
  const auto found = blocks().find(static_cast<const char*>(data));
  if (found == blocks().end()) throw std::runtime_error("memory is freed that was not allocated");
  munmap(found->second.pages, found->second.inner + 2 * kPage);
  blocks().erase(found);
}

std::string find_damage() {
  const std::scoped_lock lock(mutex);
  for (const auto& [data, block] : blocks()) {
    char* const inner = block.pages + kPage;
    char* const begin = inner + (data - inner);
    const bool front = mend_margin(inner, begin);
    const bool back = mend_margin(begin + block.bytes, inner + block.inner);
    if (front && back) continue;
    return std::string("memory was written right ") + (front ? "behind" : "before") +
           " a block of " + std::to_string(block.bytes) + " bytes";
  }
  return "";
}

std::string describe_address(const void* address) {
  const auto* at = static_cast<const char*>(address);
  for (const auto& [data, block] : blocks()) {
    if (at < block.pages || at >= block.pages + block.inner + 2 * kPage) continue;
    const std::string name = " a block of " + std::to_string(block.bytes) + " bytes";
    if (at < data) return std::to_string(data - at) + " bytes before" + name;
    return std::to_string(at - data - static_cast<ptrdiff_t>(block.bytes)) + " bytes behind" + name;
  }
  return "no block is near";
}

}  // namespace emulated

// Files: memory maps and atomic writes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace binade {

// A read-only mapping of a whole file; throws Error with the system's reason.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::shared_ptr<void>& owner() const { return owner_; }

 private:
  std::shared_ptr<void> owner_;
  std::span<const std::byte> bytes_;
};

// The whole file as text; throws Error when it is missing, unreadable or larger than `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, int64_t limit = int64_t{1} << 30);

// A file being written beside its final place. commit() flushes, fsyncs, renames and fsyncs the
// folder; a writer destroyed before that removes what it wrote. Everything throws Error, also where
// the place is taken by something else than a regular file.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Writes over what stands at `offset`; the next write() goes on at the end.
  void overwrite(uint64_t offset, std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

// With the folders above it; nothing happens if it is there. Throws Error with the system's reason.
void create_folder(const std::filesystem::path& path);

void write_text_file(const std::filesystem::path& path, std::string_view text);  // atomically

// CRC-32C (Castagnoli) of a block, continuing from `seed`.
uint32_t crc32c(const void* data, size_t bytes, uint32_t seed = 0);

}  // namespace binade

#include <binade/core/file.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <binade/core/error.h>
#include <binade/core/write_all.h>

namespace binade {

namespace {

std::string reason() {
  return std::strerror(errno);
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

int open_file(const std::filesystem::path& path, int flags, mode_t mode = 0) {
  // A name that ends there for the system is another file's. (JSON may bring one.)
  check(path.native().find('\0') == std::string::npos, "cannot open ", path.c_str(),
        ": its name goes on behind a NUL");
  return ::open(path.c_str(), flags, mode);
}

// Without O_NONBLOCK, opening a named pipe would wait for a writer before it could be refused.
constexpr int kReading = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

size_t open_regular(const std::filesystem::path& path, const Descriptor& file) {
  check(file.get() >= 0, "cannot open ", path.string(), ": ", reason());
  struct stat info {};
  const int status = ::fstat(file.get(), &info);
  check(status == 0, "cannot read ", path.string(), ": ", reason());
  check(!S_ISDIR(info.st_mode), "cannot read ", path.string(), ": it is a folder");
  check(S_ISREG(info.st_mode), "cannot read ", path.string(), ": it is not a regular file");
  return static_cast<size_t>(info.st_size);
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor descriptor(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() >= 0) ::fsync(descriptor.get());
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(open_file(path, kReading));
  const size_t size = open_regular(path, file);
  if (size == 0) return;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  check(data != MAP_FAILED, "cannot map ", path.string(), ": ", reason());
  owner_ = std::shared_ptr<void>(data, [size](void* mapping) { ::munmap(mapping, size); });
  bytes_ = {static_cast<const std::byte*>(data), size};
}

std::string read_text_file(const std::filesystem::path& path, int64_t limit) {
  const Descriptor file(open_file(path, kReading));
  const size_t size = open_regular(path, file);
  check(static_cast<int64_t>(size) <= limit, path.string(), " has ", size,
        " bytes, more than the limit of ", limit);
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "cannot read ", path.string(), ": ", reason());
    if (got == 0) break;  // it shrank meanwhile
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // Renaming would put a file in the place of a device.
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(path_, error);
  check(!std::filesystem::is_directory(there), "cannot write ", path_.string(), ": it is a folder");
  check(!std::filesystem::exists(there) || std::filesystem::is_regular_file(there), "cannot write ",
        path_.string(), ": it is not a regular file");
  temporary_ = path_;
  temporary_ += ".writing-" + std::to_string(::getpid());
  descriptor_ = open_file(temporary_, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  check(descriptor_ >= 0, "cannot write ", path_.string(), ": ", reason());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (!write_all(descriptor_, data, bytes)) fail("cannot write ", path_.string(), ": ", reason());
}

void AtomicFile::overwrite(uint64_t offset, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written =
        ::pwrite(descriptor_, text.data(), text.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    check(written > 0, "cannot write ", path_.string(), ": ", reason());
    text.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

void AtomicFile::commit() {
  const int synced = ::fsync(descriptor_);
  check(synced == 0, "cannot write ", path_.string(), ": ", reason());
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string why = reason();
    ::unlink(temporary_.c_str());
    fail("cannot write ", path_.string(), ": ", why);
  }
  sync_folder(path_.parent_path());
}

void create_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, "cannot create the folder ", path.string(), ": ", error.message());
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

uint32_t crc32c(const void* data, size_t bytes, uint32_t seed) {
  // Eight bytes at a time by table ("slicing by 8", Kounavis & Berry 2005).
  static const auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82f63b78u : 0);
      t[0][i] = value;
    }
    for (size_t k = 1; k < 8; ++k)
      for (uint32_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 0xff];
    return t;
  }();
  const auto* at = static_cast<const unsigned char*>(data);
  uint32_t crc = ~seed;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= tables[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (; bytes > 0; --bytes, ++at) crc = (crc >> 8) ^ tables[0][(crc ^ *at) & 0xff];
  return ~crc;
}

}  // namespace binade

#include <binade/train/append_file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/write_all.h>

namespace binade::train {

AppendFile::AppendFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check(descriptor_ >= 0, "cannot write ", path_.string(), ": ", std::strerror(errno));
}

AppendFile::~AppendFile() {
  ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  struct stat before {};
  const int status = ::fstat(descriptor_, &before);
  check(status == 0, "cannot write ", path_.string(), ": ", std::strerror(errno));
  if (write_all(descriptor_, record.data(), record.size())) return;
  const int reason = errno;
  // Nothing can be done where this fails, too: readers pass over a broken last record.
  [[maybe_unused]] const int cut = ::ftruncate(descriptor_, before.st_size);
  fail("cannot write ", path_.string(), ": ", std::strerror(reason));
}

}  // namespace binade::train

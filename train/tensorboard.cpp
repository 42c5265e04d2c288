#include <binade/train/tensorboard.h>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/utf8.h>

namespace binade::train {

namespace {

// ---- protobuf's wire format ----
enum Wire : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_tag(std::string& out, uint64_t field, Wire wire) {
  put_varint(out, field << 3 | wire);
}

template <class T>
void put_raw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_bytes(std::string& out, uint64_t field, const std::string& value) {
  put_tag(out, field, kBytes);
  put_varint(out, value.size());
  out += value;
}

// Event: wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5,
// session_log = 7.
std::string event(int64_t step) {
  std::string out;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  put_tag(out, 1, kFixed64);
  put_raw(out, std::chrono::duration<double>(now).count());
  put_tag(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

uint32_t masked_crc(const std::string& data) {
  const uint32_t crc = crc32c(data.data(), data.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// TFRecord: length, its masked CRC, payload, its masked CRC.
std::string framed(const std::string& payload) {
  std::string length;
  put_raw(length, static_cast<uint64_t>(payload.size()));
  std::string out = length;
  put_raw(out, masked_crc(length));
  out += payload;
  put_raw(out, masked_crc(payload));
  return out;
}

// TensorBoard reads the files of a folder in the order of their names, whatever the clock did.
std::filesystem::path new_name(const std::filesystem::path& folder) {
  constexpr std::string_view kPrefix = "events.out.tfevents.";
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  int64_t time = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t other = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), other);
    time = std::max(time, other + 1);
  }
  check(!error, "cannot list the folder ", folder.string(), ": ", error.message());
  return folder /
         (std::string(kPrefix) + std::to_string(time) + ".binade." + std::to_string(::getpid()));
}

}  // namespace

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder,
                                     std::optional<int64_t> first_step)
    : file_((create_folder(folder), new_name(folder))) {
  std::string version = event(0);
  put_bytes(version, 3, "brain.Event:2");
  records_ = framed(version);
  if (first_step) {
    std::string session;  // SessionLog: status = 1 (START = 1)
    put_tag(session, 1, kVarint);
    put_varint(session, 1);
    std::string start = event(*first_step);
    put_bytes(start, 7, session);
    records_ += framed(start);
  }
  try {
    flush();
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(file_.path(), ignored);  // a full disk should not fill with empty files
    throw;
  }
}

void TensorboardWriter::scalar(const std::string& tag, int64_t step, double value) {
  std::string entry;  // Summary.Value: tag = 1, simple_value = 2 (float)
  put_bytes(entry, 1, utf8_replace_invalid(tag));
  put_tag(entry, 2, kFixed32);
  put_raw(entry, static_cast<float>(value));
  std::string summary;  // Summary: value = 1 (repeated)
  put_bytes(summary, 1, entry);
  std::string out = event(step);
  put_bytes(out, 5, summary);
  records_ += framed(out);
}

void TensorboardWriter::flush() {
  file_.append(std::exchange(records_, ""));
}

}  // namespace binade::train

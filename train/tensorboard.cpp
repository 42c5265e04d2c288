#include <binade/train/tensorboard.h>

#include <unistd.h>

#include <chrono>
#include <cstring>

#include <binade/core/error.h>
#include <binade/core/file.h>

namespace binade::train {

namespace {

// ---- protobuf's wire format
// ------------------------------------------------------------------------
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

// Event: wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5.
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

}  // namespace

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto path = folder / concat("events.out.tfevents.",
                                    std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                                    ".binade.", ::getpid());
  file_.open(path, std::ios::binary | std::ios::app);
  check(file_.good(), "cannot write ", path.string());
  std::string first = event(0);
  put_bytes(first, 3, "brain.Event:2");
  record(first);
}

void TensorboardWriter::scalar(const std::string& tag, int64_t step, double value) {
  std::string entry;  // Summary.Value: tag = 1, simple_value = 2 (float)
  put_bytes(entry, 1, tag);
  put_tag(entry, 2, kFixed32);
  put_raw(entry, static_cast<float>(value));
  std::string summary;  // Summary: value = 1 (repeated)
  put_bytes(summary, 1, entry);
  std::string out = event(step);
  put_bytes(out, 5, summary);
  record(out);
}

void TensorboardWriter::record(const std::string& payload) {
  std::string length;
  put_raw(length, static_cast<uint64_t>(payload.size()));
  std::string framed = length;
  put_raw(framed, masked_crc(length));
  framed += payload;
  put_raw(framed, masked_crc(payload));
  file_.write(framed.data(), static_cast<std::streamsize>(framed.size()));
}

}  // namespace binade::train

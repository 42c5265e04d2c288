#include <binade/data/idx.h>

#include <zlib.h>

#include <cstring>
#include <memory>

#include <binade/core/file.h>

namespace binade::data {

namespace {

constexpr int64_t kLargest = int64_t{1} << 30;
constexpr unsigned char kUnsignedBytes = 8;  // the format's code of the element type

using GzFile = std::unique_ptr<gzFile_s, decltype(&gzclose)>;

void read_exactly(gzFile file, void* out, int64_t bytes, const std::string& name) {
  auto* at = static_cast<char*>(out);
  while (bytes > 0) {
    const int got = gzread(file, at, static_cast<unsigned>(std::min<int64_t>(bytes, 1 << 24)));
    check(got >= 0, "cannot read ", name, ": the gzip stream is damaged");
    check(got > 0, name, " is truncated");
    at += got;
    bytes -= got;
  }
}

}  // namespace

Array read_idx(const std::filesystem::path& path) {
  const std::string name = path.string();
  const MappedFile regular(path);  // refuses a named pipe, at whose open zlib would wait
  const GzFile file(gzopen(name.c_str(), "rb"), gzclose);  // reads plain files as they are
  check(file != nullptr, "cannot open ", name, ": ", std::strerror(errno));

  unsigned char magic[4];
  read_exactly(file.get(), magic, 4, name);
  check(magic[0] == 0 && magic[1] == 0, name, " is not an IDX file");
  check(magic[2] == kUnsignedBytes, name, " has the element type ", int{magic[2]},
        "; only unsigned bytes (8) are read");
  check(magic[3] >= 1 && magic[3] <= kMaxDims, name, " has ", int{magic[3]}, " dimensions");
  Shape shape;
  for (int i = 0; i < magic[3]; ++i) {
    unsigned char size[4];
    read_exactly(file.get(), size, 4, name);
    shape.push_back(int64_t{size[0]} << 24 | size[1] << 16 | size[2] << 8 | size[3]);
  }
  check(shape.numel() <= kLargest, name, " would have ", shape.numel(),
        " elements, more than the limit of ", kLargest);
  Array array = Array::empty(shape, DType::u8);
  read_exactly(file.get(), array.data(), array.bytes(), name);
  char surplus;
  check(gzread(file.get(), &surplus, 1) == 0, name, " has more data than its header says");
  return array;
}

}  // namespace binade::data

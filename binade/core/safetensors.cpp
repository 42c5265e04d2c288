#include <binade/core/safetensors.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include <binade/core/file.h>
#include <binade/core/text.h>

namespace binade {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kLargestHeader = 100'000'000;

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr DTypeName kDTypes[] = {
    {"F64", DType::f64}, {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16},
    {"I64", DType::i64}, {"I32", DType::i32}, {"U8", DType::u8},   {"BOOL", DType::boolean}};

// Rejects a key that stands twice in one object, which a plain parse would let through.
Json parse_header(const std::string& text, const std::string& file) {
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key)
      check(keys.back().insert(value.get<std::string>()).second, file, ": the header names ",
            value.dump(), " twice");
    return true;
  };
  try {
    return Json::parse(text, callback);
  } catch (const Json::exception& error) {
    fail(file, ": the header is not valid JSON: ", error.what());
  }
}

struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;
};

uint64_t unsigned_of(const Json& value, const std::string& file, const std::string& name,
                     const char* what) {
  check(value.is_number_unsigned(), file, ": tensor ", name, ": ", what,
        " must be whole numbers from 0, got ", value.dump().substr(0, 40));
  return value.get<uint64_t>();
}

Entry parse_entry(const std::string& name, const Json& json, uint64_t data_bytes,
                  const std::string& file) {
  const auto member = [&](const char* key) -> const Json& {
    check(json.is_object() && json.contains(key), file, ": tensor ", name, " has no ", key);
    return json.at(key);
  };
  const Json& dtype_json = member("dtype");
  check(dtype_json.is_string(), file, ": tensor ", name, ": dtype must be a string");
  const std::string dtype_name = dtype_json.get<std::string>();
  const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                  [&](const DTypeName& d) { return dtype_name == d.name; });
  check(known != std::end(kDTypes), file, ": tensor ", name, " has the dtype ", dtype_name,
        ", which Binade does not read (F64 F32 F16 BF16 I64 I32 U8 BOOL)");

  const Json& sizes = member("shape");
  check(sizes.is_array() && sizes.size() <= kMaxDims, file, ": tensor ", name,
        ": shape must be a list of at most ", kMaxDims, " sizes");
  Shape shape;
  uint64_t bytes = static_cast<uint64_t>(size_of(known->dtype));
  for (const Json& size : sizes) {
    const uint64_t value = unsigned_of(size, file, name, "sizes");
    check(value <= INT64_MAX && !__builtin_mul_overflow(bytes, value, &bytes) && bytes <= INT64_MAX,
          file, ": tensor ", name, ": the shape ", sizes.dump(), " overflows");
    shape.push_back(static_cast<int64_t>(value));
  }
  const Json& offsets = member("data_offsets");
  check(offsets.is_array() && offsets.size() == 2, file, ": tensor ", name,
        ": data_offsets must be two numbers");
  const uint64_t begin = unsigned_of(offsets[0], file, name, "data_offsets");
  const uint64_t end = unsigned_of(offsets[1], file, name, "data_offsets");
  check(begin <= end && end <= data_bytes, file, ": tensor ", name, ": data_offsets [", begin, ", ",
        end, "] pass the end of the data, which has ", data_bytes,
        " bytes: the file is truncated or damaged");
  check(end - begin == bytes, file, ": tensor ", name, ": ", dtype_name, ' ', shape, " needs ",
        bytes, " bytes, data_offsets give ", end - begin);
  return {name, known->dtype, shape, begin, end};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const std::string file = path.string();
  const MappedFile mapped(path);
  const std::span<const std::byte> bytes = mapped.bytes();
  check(bytes.size() >= 8, file, " has ", bytes.size(), " bytes, too few for a safetensors file");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  check(header_bytes <= kLargestHeader, file, ": the header would have ", header_bytes,
        " bytes, more than ", kLargestHeader, ": not a safetensors file, or damaged");
  check(header_bytes <= bytes.size() - 8, file, ": the header of ", header_bytes,
        " bytes passes the end of the file: truncated");
  const std::string header(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const uint64_t data_bytes = bytes.size() - 8 - header_bytes;

  const Json json = parse_header(header, file);
  check(json.is_object(), file, ": the header is not a JSON object");
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      check(value.is_object(), file, ": __metadata__ is not an object");
      for (const auto& [key, text] : value.items()) {
        check(text.is_string(), file, ": __metadata__ ", key, " is not a string");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    entries.push_back(parse_entry(name, value, data_bytes, file));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  uint64_t expected = 0;
  for (const Entry& entry : entries) {
    check(entry.begin >= expected, file, ": tensor ", entry.name,
          " overlaps the one before it (data_offsets ", entry.begin, " < ", expected, ")");
    check(entry.begin == expected, file, ": bytes ", expected, " to ", entry.begin,
          " of the data belong to no tensor");
    expected = entry.end;
  }
  check(expected == data_bytes, file, ": bytes ", expected, " to ", data_bytes,
        " of the data belong to no tensor");

  // The header's length need not be a multiple of the element size, so a view may be misaligned;
  // such tensors are copied out.
  const std::byte* data = bytes.data() + 8 + header_bytes;
  for (const Entry& entry : entries) {
    void* at = const_cast<std::byte*>(data + entry.begin);
    const bool aligned =
        reinterpret_cast<uintptr_t>(at) % static_cast<size_t>(size_of(entry.dtype)) == 0;
    Array array;
    if (aligned) {
      array = Array::from_blob(at, entry.shape, entry.dtype, {}, mapped.owner());
    } else {
      array = Array::empty(entry.shape, entry.dtype);
      std::memcpy(array.data(), at, entry.end - entry.begin);
    }
    names_.push_back(entry.name);
    tensors_.emplace(entry.name, std::move(array));
  }
}

Array SafetensorsFile::get(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  fail(path_.string(), " has no tensor ", name, did_you_mean(name, names_));
}

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  // Wide elements first, so that every tensor is aligned to its element size.
  std::vector<std::pair<std::string, Array>> order(tensors.begin(), tensors.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return size_of(a.second.dtype()) > size_of(b.second.dtype());
  });
  uint64_t offset = 0;
  for (const auto& [name, array] : order) {
    const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                    [&](const DTypeName& d) { return array.dtype() == d.dtype; });
    Json& entry = header[name];
    entry["dtype"] = known->name;
    entry["shape"] = array.shape().span();
    const uint64_t end = offset + static_cast<uint64_t>(array.bytes());
    entry["data_offsets"] = {offset, end};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the format's way to align the data

  AtomicFile file(path);
  const uint64_t header_bytes = text.size();
  file.write(&header_bytes, 8);
  file.write(text);
  for (const auto& [name, array] : order) {
    if (array.numel() == 0) continue;
    const Array host = array.to(Device::cpu()).contiguous();
    file.write(host.data(), static_cast<size_t>(host.bytes()));
  }
  file.commit();
}

}  // namespace binade

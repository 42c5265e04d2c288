// Any bytes taken for a safetensors file: an Error, or tensors whose every element can be read and
// which are the same once written and read again.
#include <binade/core/safetensors.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade;
  std::map<std::string, Array> tensors;
  try {
    const SafetensorsFile file(fuzz::file_of(data, size));
    for (const std::string& name : file.names()) {
      tensors[name] = file.get(name).clone();
      file.get(name).to_vector<double>();
    }
    write_safetensors(fuzz::scratch_file(), tensors, file.metadata());
  } catch (const Error&) {
    return 0;
  }
  const SafetensorsFile again(fuzz::scratch_file());
  if (again.names().size() != tensors.size()) std::abort();
  for (const auto& [name, array] : tensors) {
    const Array other = again.get(name);
    if (other.shape() != array.shape() || other.dtype() != array.dtype()) std::abort();
    if (array.numel() > 0 &&
        std::memcmp(other.data(), array.data(), static_cast<size_t>(array.bytes())) != 0)
      std::abort();
  }
  return 0;
}

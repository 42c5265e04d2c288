// Any bytes taken for the choices of a draft tree: an Error, or a tree that is the same once
// written and read again.
#include <binade/core/error.h>
#include <binade/heads/decoding/draft_tree.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::heads::decoding;
  const auto read = [](std::string_view text) { return DraftTree::from_json(text, "fuzz"); };
  try {
    const DraftTree tree = read({reinterpret_cast<const char*>(data), size});
    if (tree.size() > kMostNodes) std::abort();
    if (read(tree.json()).parents() != tree.parents()) std::abort();
  } catch (const binade::Error&) {
  }
  return 0;
}

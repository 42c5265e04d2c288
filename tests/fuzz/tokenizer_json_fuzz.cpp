// Any bytes taken for a tokenizer.json: an Error or a tokenizer that encodes and decodes.
#include <binade/core/error.h>
#include <binade/data/bpe_tokenizer.h>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::data;
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = BpeTokenizer::from_json(text, "fuzz");
    // The file itself serves as a text: it holds the tokens that its vocabulary names.
    const auto ids = tokenizer->encode(text, {.add_special_tokens = true});
    tokenizer->decode(ids);
    StreamDecoder decoder(*tokenizer);
    for (const int32_t id : ids) decoder.push(id);
    decoder.finish();
  } catch (const binade::Error&) {
  }
  return 0;
}

// Any bytes taken for a chat template: an Error, or a text and spans that lie in it.
#include <binade/core/error.h>
#include <binade/data/chat_template.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::data;
  const std::vector<Message> messages = {
      {"system", "S"}, {"user", " \xC3\xA9 a\n"}, {"assistant", "b"}, {"user", "c"}};
  try {
    const auto chat = ChatTemplate::parse({reinterpret_cast<const char*>(data), size},
                                          {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const RenderedChat rendered = chat.render_with_mask(messages);
    for (const ByteSpan& span : rendered.replies) {
      if (span.begin > span.end || span.end > rendered.text.size()) std::abort();
    }
  } catch (const binade::Error&) {
  }
  return 0;
}

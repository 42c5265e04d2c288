#include <binade/core/utf8.h>
#include <binade/data/byte_alphabet.h>

namespace binade::data {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr size_t kCharacters = 0x144;  // the largest character of the alphabet is U+0143

constexpr bool is_printable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

}  // namespace

const std::array<char32_t, 256>& byte_alphabet() {
  static const auto alphabet = [] {
    std::array<char32_t, 256> characters{};
    char32_t next = kFirstSubstitute;
    for (int byte = 0; byte < 256; ++byte) {
      characters[byte] = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
    }
    return characters;
  }();
  return alphabet;
}

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) utf8_append(out, byte_alphabet()[static_cast<unsigned char>(byte)]);
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view spelled) {
  static const auto byte_of = [] {
    std::array<int, kCharacters> table;
    table.fill(-1);
    for (int byte = 0; byte < 256; ++byte) table[byte_alphabet()[byte]] = byte;
    return table;
  }();
  std::string out;
  for (size_t pos = 0; pos < spelled.size();) {
    const char32_t character = utf8_next(spelled, pos);
    if (character >= kCharacters || byte_of[character] < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte_of[character]));
  }
  return out;
}

}  // namespace binade::data

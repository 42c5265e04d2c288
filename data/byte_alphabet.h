// INTERNAL. GPT-2's printable alphabet for bytes (Radford et al. 2019, encoder.py): a byte that is
// printable in Latin-1 stands for itself, the others for U+0100 onwards. Byte-level vocabularies
// are spelled in it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace binade::data {

// The character of every byte.
const std::array<char32_t, 256>& byte_alphabet();

// "Ġthe" of " the".
std::string spell_bytes(std::string_view bytes);

// " the" of "Ġthe"; nullopt when a character is not of the alphabet.
std::optional<std::string> unspell_bytes(std::string_view spelled);

}  // namespace binade::data

// INTERNAL. Reading a saved state back, for whoever has arrays by name.
#pragma once

#include <string>
#include <vector>

#include <binade/optim/flat_group.h>

namespace binade::optim {

// Copies the saved arrays into those of `own` (handles on the memory to fill), converting dtype and
// device. Throws Error that begins with `who` and writes nothing when a name is missing or unknown,
// a shape differs, an integer is where a float belongs (or the reverse), or a value is not finite.
void load_arrays(const std::string& who, const nn::StateDict& saved, const nn::StateDict& own);

// A saved state with the own elements (FlatGroup::own_piece) in place of the tensors of `members`;
// nothing else of those is read. Throws Error that begins with `who` for one of another shape.
nn::StateDict pieces_of(const std::string& who, const nn::StateDict& saved,
                        const std::vector<MemberState>& members);
// Where they go: what the members' buffers have of them.
nn::StateDict parts_of(const std::vector<MemberState>& members);

}  // namespace binade::optim

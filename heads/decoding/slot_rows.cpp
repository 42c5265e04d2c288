#include <binade/heads/decoding/slot_rows.h>

#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>

namespace binade::heads::decoding {

void SlotRows::update(const Tensor& rows, const Array& sources, const Array& running) {
  const Array given = rows.array().contiguous();
  check(given.dtype() == rows_.dtype() && given.size(1) == rows_.size(1), "rows of ", given.size(1),
        ' ', given.dtype(), " cannot take the place of ", rows_.size(1), ' ', rows_.dtype());
  BINADE_DISPATCH(rows_.device(), keep_rows(given, sources, running, rows_));
  rows_.bump_version();
}

}  // namespace binade::heads::decoding

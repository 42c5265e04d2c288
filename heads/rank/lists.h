// Lists: what ranking learns from and is judged by, ragged lists of documents without padding.
#pragma once

#include <binade/core/array.h>

namespace binade::heads::rank {

// The documents of Q lists (queries), one list after another. Everything lies on one device.
struct Lists {
  // (Q + 1) i64, from 0 on and never falling: list q is rows offsets[q] up to offsets[q + 1], which
  // may be none. Rows from offsets[Q] on fill a batch up to the capacity of its bucket: no loss and
  // no metric reads them, and their gradient is 0. A bucket's unused lists are empty ones at the
  // end, so that counts need no scalar of their own.
  Array offsets;
  Array labels;  // (N) f32: grades of relevance, or clicks
  // (N) f32, 0 or more: a document's weight, an inverse propensity for example. Undefined: 1.
  Array weights;
  // (Q) f32, 0 or more: a list's weight. Undefined: 1.
  Array list_weights;
};

}  // namespace binade::heads::rank

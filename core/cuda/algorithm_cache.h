// The table of product algorithms on disk, so that a second process need not time them again.
#pragma once

namespace binade::cuda {

// The file is products-<GPU and library>.json in the cache folder ($BINADE_CACHE, or
// ~/.cache/binade; without either nothing is kept). A file that cannot be read or written costs a
// log line, never the run. In deterministic mode neither does anything: choices do not depend on
// timings then.

// Reads the file, once per process.
void load_algorithm_cache();
// Writes the table if it has changed since.
void save_algorithm_cache();

}  // namespace binade::cuda

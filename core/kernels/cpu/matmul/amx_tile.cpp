// Compiled with -mavx512f/bw/vl -mamx-tile -mamx-bf16 where the compiler has them
// (BINADE_HAVE_AMX): but for tile_kernel(), which asks the processor, nothing here may run before
// it has. Nothing here is an inline function that the linker could share with other files either.
#include <binade/core/kernels/cpu/matmul/amx_tile.h>

#if BINADE_HAVE_AMX

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

namespace binade::kernels::cpu {

namespace {

constexpr int kLines = TileKernel::kLines, kHalf = TileKernel::kDepth / 2;
constexpr int64_t kElements = TileKernel::kElements;

// rows[i] lane j ↔ rows[j] lane i.
void transpose_16x16(__m512 (&rows)[16]) {
  __m512 pairs[16], quads[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  const auto low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  // quads[4g + c] holds, in its 128-bit lane l, column 4l + c of rows 4g … 4g + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    quads[i] = low(pairs[i], pairs[i + 2]);
    quads[i + 1] = high(pairs[i], pairs[i + 2]);
    quads[i + 2] = low(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = high(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);
    const __m512 odd01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    rows[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    rows[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}

// x rounded to 8 significant bits (halves away from zero), as a float.
__m512 leading_part(__m512 x) {
  const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32(~0xffff);
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), mask));
}

// Lanes of two BF16 numbers, held as floats without a tail.
__m512i join(__m512 low, __m512 high) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16),
                         _mm512_castps_si512(high));
}

// A row of every part's tile. The tiles' pairs along k are (i, 16 + i): any order will do that is
// a's and b's alike, and this one needs no shuffle.
template <int Parts>
void store_row(__m512 low, __m512 high, uint16_t* tiles) {
#pragma GCC unroll 3
  for (int part = 0; part < Parts; ++part) {
    const bool last = part + 1 == Parts;  // exact: what remains has 8 significant bits
    const __m512 low_part = last ? low : leading_part(low);
    const __m512 high_part = last ? high : leading_part(high);
    _mm512_store_si512(tiles + part * kElements, join(low_part, high_part));
    low = _mm512_sub_ps(low, low_part);
    high = _mm512_sub_ps(high, high_part);
  }
}

// The first `count` lanes.
__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

// The type of numbers of so many parts.
template <int Parts>
struct SourceOf {
  using Type = uint16_t;
};
template <>
struct SourceOf<3> {
  using Type = float;
};
template <int Parts>
using Source = typename SourceOf<Parts>::Type;

__m512 from_f16(__m256i bits) {
  return _mm512_cvtph_ps(bits);
}
__m512 from_bf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
template <int Parts>
__m512 load_lanes(const Source<Parts>* from) {
  if constexpr (Parts == 3) {
    return _mm512_loadu_ps(from);
  } else {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return Parts == 2 ? from_f16(bits) : from_bf16(bits);
  }
}
template <int Parts>
__m512 load_lanes(const Source<Parts>* from, __mmask16 lanes) {  // 0 elsewhere
  if constexpr (Parts == 3) {
    return _mm512_maskz_loadu_ps(lanes, from);
  } else {
    const __m256i bits = _mm256_maskz_loadu_epi16(lanes, from);
    return Parts == 2 ? from_f16(bits) : from_bf16(bits);
  }
}

// One tile of every part, of which `lines` lines and `depth` steps along k are there. `largest`
// collects magnitudes, and `sums` (unless null) the sums of the lines: a vector of all where the
// source lies by k, one to be added up for each line otherwise.
template <int Parts, bool OfA, bool ByK, bool Whole>
[[gnu::always_inline]] inline void split_tile(int64_t lines, int64_t depth,
                                              const Source<Parts>* from, int64_t leading,
                                              uint16_t* tiles, __m512i& largest, float* sums) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  // Row `row` of the first or second half of the source: k is cut in the middle.
  const auto load = [&](int half, int row) {
    const int64_t line = ByK ? half * kHalf + row : row, lane = ByK ? 0 : half * kHalf;
    const Source<Parts>* const source = from + line * leading + lane;
    __m512 x;
    if constexpr (Whole) {
      x = load_lanes<Parts>(source);
    } else {
      const bool present = line < (ByK ? depth : lines);
      x = load_lanes<Parts>(present ? source : from,
                            first_lanes(present ? (ByK ? lines : depth - lane) : 0));
    }
    if constexpr (Parts > 1)
      largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(x), magnitude));
    return x;
  };
  const auto add_to = [](float* sum, __m512 x) {
    _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), x));
  };
  // The rows of a tile are lines for a, and pairs along k for b.
  if constexpr (OfA == ByK) {
    const auto take = [&](int half, __m512(&rows)[16]) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int row = 0; row < 16; ++row) rows[row] = load(half, row);
      if (OfA && sums != nullptr) {
        __m512 sum = rows[0];
#pragma GCC unroll 16
        for (int row = 1; row < 16; ++row) sum = _mm512_add_ps(sum, rows[row]);
        add_to(sums, sum);
      }
      transpose_16x16(rows);
    };
    __m512 low[16], high[16];
    take(0, low);
    take(1, high);
#pragma GCC unroll 16
    for (int row = 0; row < 16; ++row)
      store_row<Parts>(low[row], high[row], tiles + row * TileKernel::kDepth);
  } else {
#pragma GCC unroll 4
    for (int row = 0; row < 16; ++row) {
      const __m512 low = load(0, row), high = load(1, row);
      if (OfA && sums != nullptr) add_to(sums + row * 16, _mm512_add_ps(low, high));
      store_row<Parts>(low, high, tiles + row * TileKernel::kDepth);
    }
  }
}

template <int Parts, bool OfA, bool ByK>
bool split(int64_t lines, int64_t k, const void* numbers, int64_t leading, uint16_t* panels,
           float* sums) {
  const auto* const from = static_cast<const Source<Parts>*>(numbers);
  constexpr int64_t kDepth = TileKernel::kDepth;
  const int64_t panel_size = (k + kDepth - 1) / kDepth * Parts * kElements;
  __m512i largest = _mm512_setzero_si512();
  const auto tile = [&](int64_t line, int64_t done, float* tile_sums) {
    const int64_t count = lines - line, depth = k - done;
    const Source<Parts>* const source =
        ByK ? from + done * leading + line : from + line * leading + done;
    uint16_t* const tiles = panels + line / kLines * panel_size + done * Parts * kLines;
    if (count >= kLines && depth >= kDepth)
      split_tile<Parts, OfA, ByK, true>(count, depth, source, leading, tiles, largest, tile_sums);
    else
      split_tile<Parts, OfA, ByK, false>(count, depth, source, leading, tiles, largest, tile_sums);
  };
  // In the order in which the source lies, as far as that can be.
  if constexpr (ByK) {
    if (sums != nullptr)
      for (int64_t line = 0; line < lines; line += kLines)
        _mm512_storeu_ps(sums + line, _mm512_setzero_ps());
    for (int64_t done = 0; done < k; done += kDepth)
      for (int64_t line = 0; line < lines; line += kLines)
        tile(line, done, sums != nullptr ? sums + line : nullptr);
  } else {
    for (int64_t line = 0; line < lines; line += kLines) {
      alignas(64) float line_sums[kLines * 16] = {};
      for (int64_t done = 0; done < k; done += kDepth) {
        // Lines far apart lie in pages of their own, which the processor does not fetch ahead
        // across: the next panel's are fetched here.
        for (int64_t next = kLines; next < 2 * kLines; ++next) {
          const Source<Parts>* const ahead = from + (line + next) * leading + done;
          _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(ahead + kHalf), _MM_HINT_T0);
        }
        tile(line, done, sums != nullptr ? line_sums : nullptr);
      }
      if (sums != nullptr)
        for (int i = 0; i < kLines; ++i)
          sums[line + i] = _mm512_reduce_add_ps(_mm512_load_ps(line_sums + i * 16));
    }
  }
  if constexpr (Parts == 1) return true;
  const __m512i limit = _mm512_castps_si512(_mm512_set1_ps(TileKernel::kLimit));
  return _mm512_cmplt_epu32_mask(largest, limit) == 0xffff;
}

// The tile at `tile` is fetched into the first level of the cache.
[[gnu::always_inline]] inline void fetch_tile(const uint16_t* tile) {
#pragma GCC unroll 16
  for (int row = 0; row < kLines; ++row)
    _mm_prefetch(reinterpret_cast<const char*>(tile + row * TileKernel::kDepth), _MM_HINT_T0);
}

template <int Parts, int Rows, int Columns>
void multiply(int64_t depth, const uint16_t* a, int64_t a_panel, const uint16_t* b, int64_t b_panel,
              const uint16_t* ahead, bool add, float* c, int64_t leading_c) {
  constexpr int64_t kTileRow = 64, kStep = Parts * kElements;  // bytes, elements
  constexpr int kHeight = Rows * kLines, kWidth = Columns * kLines;
  asm volatile("" ::: "memory");  // the loads of tiles are no loads to the compiler
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto load_a = [&](int part) {
    _tile_loadd(4, a + part * kElements, kTileRow);
    if constexpr (Rows == 2) _tile_loadd(5, a + a_panel + part * kElements, kTileRow);
  };
  const auto load_b = [&](int part) {
    _tile_loadd(6, b + part * kElements, kTileRow);
    if constexpr (Columns == 2) _tile_loadd(7, b + b_panel + part * kElements, kTileRow);
  };
  // The same tiles of the next step along k, while the processor multiplies.
  const auto fetch_a = [&](int part) {
    fetch_tile(a + kStep + part * kElements);
    if constexpr (Rows == 2) fetch_tile(a + a_panel + kStep + part * kElements);
  };
  const auto fetch_b = [&](int part) {
    fetch_tile(b + kStep + part * kElements);
    if constexpr (Columns == 2) fetch_tile(b + b_panel + kStep + part * kElements);
  };
  const auto add_products = [] {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Columns == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (Rows == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (Rows == 2 && Columns == 2) _tile_dpbf16ps(3, 5, 7);
  };
  // c's lines are fetched a few at a time, in the last steps.
  constexpr int kLinesAtOnce = 4;
  const float* line_of_c = c;
  const int64_t before_c = depth - kHeight / kLinesAtOnce;
  for (int64_t i = 0; i < depth; ++i) {
    constexpr int64_t kLine = 32, kFetched = kStep / TileKernel::kFetches;
    for (int64_t line = 0; line < kFetched; line += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(ahead + b_panel + line), _MM_HINT_T1);
    }
    ahead += kFetched;
    if (i >= before_c) {
      for (int line = 0; line < kLinesAtOnce; ++line, line_of_c += leading_c)
        for (int column = 0; column < kWidth; column += kLines)
          __builtin_prefetch(line_of_c + column, 1);
    }
    // Successive products share a part, and the largest comes last.
    if constexpr (Parts == 3) {
      load_a(2), load_b(0), fetch_a(2), add_products();
      load_a(1), fetch_b(0), add_products();
      load_b(1), fetch_a(1), add_products();
      load_a(0), fetch_b(1), add_products();
      load_b(2), fetch_a(0), add_products();
      load_b(0), fetch_b(2), add_products();
    } else if constexpr (Parts == 2) {
      load_a(0), load_b(1), fetch_a(0), add_products();
      load_a(1), fetch_b(1), add_products();
      load_b(0), fetch_a(1), add_products();
      load_a(0), fetch_b(0), add_products();
    } else {
      load_a(0), load_b(0), fetch_a(0), fetch_b(0), add_products();
    }
    a += kStep;
    b += kStep;
  }
  const auto store = [](float* to, int64_t leading) {
    const int64_t row = leading * static_cast<int64_t>(sizeof(float));
    _tile_stored(0, to, row);
    if constexpr (Columns == 2) _tile_stored(1, to + kLines, row);
    if constexpr (Rows == 2) _tile_stored(2, to + kLines * leading, row);
    if constexpr (Rows == 2 && Columns == 2) _tile_stored(3, to + kLines * leading + kLines, row);
  };
  if (!add) return store(c, leading_c);
  alignas(64) float sums[kHeight * kWidth];
  store(sums, kWidth);
  asm volatile("" ::: "memory");
  for (int row = 0; row < kHeight; ++row) {
    for (int column = 0; column < kWidth; column += kLines) {
      float* const to = c + row * leading_c + column;
      _mm512_storeu_ps(
          to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_load_ps(sums + row * kWidth + column)));
    }
  }
}

// All tiles are 16 rows of 64 bytes. Static, as the compiler does not see that it is read.
constinit const struct alignas(64) {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
} kTileConfig;

void configure() {
  _tile_loadconfig(&kTileConfig);
}

void release() {
  _tile_release();
}

#define BINADE_SPLIT(OfA)                                                                         \
  {                                                                                               \
    {&split<1, OfA, false>, &split<1, OfA, true>}, {&split<2, OfA, false>, &split<2, OfA, true>}, \
        {&split<3, OfA, false>, &split<3, OfA, true>},                                            \
  }
#define BINADE_MULTIPLY(Parts)                            \
  {                                                       \
    {&multiply<Parts, 1, 1>, &multiply<Parts, 1, 2>},     \
        {&multiply<Parts, 2, 1>, &multiply<Parts, 2, 2>}, \
  }
constinit const TileKernel kTileKernel = {
    BINADE_SPLIT(true),
    BINADE_SPLIT(false),
    {BINADE_MULTIPLY(1), BINADE_MULTIPLY(2), BINADE_MULTIPLY(3)},
    &configure,
    &release,
};
#undef BINADE_SPLIT
#undef BINADE_MULTIPLY

bool processor_has_tiles() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (~d & (kBf16 | kTile)) != 0) return false;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

// Linux gives a process the tile registers when it asks (Linux, "Using XSTATE features in user
// space applications").
bool system_grants_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool user_wants_tiles() {
  const char* const setting = std::getenv("BINADE_AMX");
  return setting == nullptr || setting[0] != '0' || setting[1] != '\0';
}

}  // namespace

const TileKernel* tile_kernel() {
  static const bool available =
      user_wants_tiles() && processor_has_tiles() && system_grants_tiles();
  return available ? &kTileKernel : nullptr;
}

}  // namespace binade::kernels::cpu

#else

namespace binade::kernels::cpu {

const TileKernel* tile_kernel() {
  return nullptr;
}

}  // namespace binade::kernels::cpu

#endif

// Matmuls on the GPU against those on the CPU.
#include <stdlib.h>

#include <filesystem>

#include <binade/core/cuda/algorithm_cache.h>
#include <binade/core/cuda/libraries.h>
#include <binade/core/file.h>
#include <binade/core/kernels/matmul.h>

#include "core/column_sums.h"
#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using kernels::MatmulEpilogue;

namespace {

void run_matmul(const Array& a, const Array& b, const Array& out,
                const MatmulEpilogue& epilogue = {}) {
  BINADE_DISPATCH(a.device(), matmul(a, b, out, epilogue));
}

// A view of `shape` on new random memory: 0 rows contiguous, 1 columns contiguous, 2 rows with a
// gap, 3 no stride of 1, 4 not 16-byte aligned.
Array in_layout(int layout, const Shape& shape, DType dtype, Random& random) {
  Shape whole = shape;
  const int rows = shape.dims() - 2, cols = shape.dims() - 1;
  switch (layout) {
    case 1:
      std::swap(whole[rows], whole[cols]);
      return random_array(whole, dtype, random).transpose(rows, cols);
    case 2:
      whole[cols] += 8;
      return random_array(whole, dtype, random).slice(cols, 8);
    case 3:
      whole[cols] *= 2;
      return random_array(whole, dtype, random).slice(cols, 0, kToEnd, 2);
    case 4:
      return random_array({shape.numel() + 1}, dtype, random).slice(0, 1).view(shape);
    default:
      return random_array(shape, dtype, random);
  }
}

// The dtypes of a matmul's inputs and of its output.
struct DTypes {
  DType in, out;
};
const DTypes kDTypes[] = {{DType::f64, DType::f64}, {DType::f32, DType::f32},
                          {DType::f16, DType::f16}, {DType::bf16, DType::bf16},
                          {DType::f16, DType::f32}, {DType::bf16, DType::f32}};

}  // namespace

TEST_CASE("matmuls agree on both devices in every dtype and layout", "[cuda][matmul]") {
  require_gpu();
  Random random(1);
  struct Size {
    int64_t m, n, k;
  };
  for (const auto& [in, out_dtype] : kDTypes)
    for (const auto& [m, n, k] : {Size{1, 1, 1}, Size{1, 72, 40}, Size{64, 1, 33}, Size{37, 41, 1},
                                  Size{128, 96, 64}, Size{31, 45, 77}})
      for (int left = 0; left < 5; ++left)
        for (int right = 0; right < 5; ++right) {
          const int layout = (left + right) % 5;
          const Array a = in_layout(left, {m, k}, in, random);
          const Array b = in_layout(right, {k, n}, in, random);
          const Array out = in_layout(layout, {m, n}, out_dtype, random);
          for (const float beta : {0.0f, 1.0f}) {
            INFO(in << " to " << out_dtype << ", " << m << ' ' << n << ' ' << k << ", layouts "
                    << left << ' ' << right << ' ' << layout << ", beta " << beta);
            compare_devices(
                [&](const auto& v) {
                  MatmulEpilogue epilogue;
                  epilogue.beta = beta;
                  run_matmul(v[0], v[1], v[2], epilogue);
                },
                {a, b, out});
          }
        }
}

TEST_CASE("batches of matmuls agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(2);
  for (const auto& [in, out_dtype] : kDTypes) {
    const auto compare = [&, in = in](const Array& a, const Array& b, const Array& out) {
      INFO(in << ' ' << a.shape() << a.strides() << ' ' << b.shape() << b.strides() << ' '
              << out.strides());
      compare_devices([](const auto& v) { run_matmul(v[0], v[1], v[2]); }, {a, b, out}, 2);
    };
    const auto make = [&, in = in](const Shape& shape) { return random_array(shape, in, random); };
    const auto out = [&, dtype = out_dtype](const Shape& shape) {
      return random_array(shape, dtype, random);
    };
    compare(make({3, 24, 40}), make({3, 40, 16}), out({3, 24, 16}));
    // One b for all: rows of one matmul, also where a's rows do not follow each other.
    compare(make({3, 24, 40}), make({40, 16}).expand({3, 40, 16}), out({3, 24, 16}));
    compare(make({3, 32, 40}).slice(1, 0, 24), make({40, 16}).expand({3, 40, 16}),
            out({3, 24, 16}));
    // One row each, from a vector that all share.
    compare(make({1, 40}).expand({3, 1, 40}), make({40, 16}).expand({3, 40, 16}), out({3, 1, 16}));
    compare(make({24, 40}).expand({3, 24, 40}), make({3, 40, 16}), out({3, 24, 16}));
    // Heads inside packed rows: (B, T, H, D) seen as (B, H, T, D).
    const Array q = make({2, 12, 4, 8}).transpose(1, 2), k = make({2, 20, 4, 8}).transpose(1, 2);
    compare(q, k.transpose(2, 3), out({2, 4, 12, 20}));
    compare(make({2, 4, 12, 20}), k, out({2, 12, 4, 8}).transpose(1, 2));
    // An empty sum, and nothing at all.
    compare(make({2, 6, 0}), make({2, 0, 5}), out({2, 6, 5}));
    compare(make({0, 6, 4}), make({0, 4, 5}), out({0, 6, 5}));
  }
}

TEST_CASE("matmuls with epilogues agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(3);
  for (const auto& [in, out_dtype] : kDTypes)
    for (const Shape& size : {Shape{64, 128, 96}, Shape{33, 45, 27}, Shape{1, 64, 32}})
      for (const int rows : {1, 3})  // leading dimensions, folded into the rows
        for (int kind = 0; kind < 8; ++kind) {
          const Array a = random_array({rows, size[0], size[2]}, in, random, 0.3);
          const Array b =
              random_array({size[2], size[1]}, in, random, 0.3).expand({rows, size[2], size[1]});
          const Array out = random_array({rows, size[0], size[1]}, out_dtype, random);
          const Array pre = random_array(out.shape(), out_dtype, random);
          const Array again = random_array(out.shape(), out_dtype, random);
          const Array bias = random_array({size[1]}, kind == 1 ? DType::f32 : in, random);
          INFO(in << " to " << out_dtype << ", size " << size << ", rows " << rows << ", kind "
                  << kind);
          // An unfused epilogue rounds once more. cuBLASLt's GELU and its derivative take an
          // approximate tanh, which an f32 output shows (3.1e-5 seen).
          const double slack =
              kind >= 2 && kind < 6 && is_half(in) && out_dtype == DType::f32 ? 6 : 3;
          compare_devices(
              [&](const auto& v) {
                MatmulEpilogue epilogue;
                if (kind <= 3 || kind == 7) epilogue.bias = v[4];
                epilogue.gelu = kind == 2 || kind == 3;
                if (kind == 3) epilogue.pre_activation = v[3];
                epilogue.dgelu = kind == 4 || kind == 5;
                if (epilogue.dgelu) epilogue.pre_activation = v[3];
                if (kind == 5) epilogue.recomputed_gelu = v[5];
                epilogue.relu = kind >= 6;
                run_matmul(v[0], v[1], v[2], epilogue);
              },
              {a, b, out, pre, bias, again}, slack);
        }
}

TEST_CASE("relu behind a matmul keeps NaN on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(7);
  for (const auto& [in, out_dtype] : kDTypes)
    for (const Shape& size : {Shape{64, 128, 96}, Shape{33, 45, 27}, Shape{2048, 512, 1024}})
      for (const bool biased : {true, false}) {
        INFO(in << " to " << out_dtype << ", size " << size << ", bias " << biased);
        const Array a = random_array({size[0], size[2]}, in, random, 0.3);
        write(a, 5 * size[2] + 3, std::nan(""));
        const Array b = gpu_random({size[1], size[2]}, in, random, 0.3).transpose(0, 1);
        const Array out = gpu_empty({size[0], size[1]}, out_dtype);
        MatmulEpilogue epilogue;
        epilogue.relu = true;
        if (biased) epilogue.bias = gpu_random({size[1]}, in, random);
        run_matmul(on_device(a, test_gpu()), b, out, epilogue);
        const std::vector<double> got = out.to_vector<double>();
        int64_t nans = 0, negative = 0;
        for (const double value : got) {
          nans += std::isnan(value) ? 1 : 0;
          negative += value < 0 ? 1 : 0;
        }
        CHECK(nans == size[1]);
        CHECK(negative == 0);
      }
}

TEST_CASE("relu's gradient behind a matmul agrees on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(8);
  for (const auto& [in, out_dtype] : kDTypes)
    for (const Shape& size : {Shape{64, 128, 96}, Shape{33, 45, 27}, Shape{1, 64, 32},
                              Shape{2056, 1000, 1048}})  // large ones have a kernel of their own
      for (const bool summed : {true, false}) {
        const Array a = random_array({size[0], size[2]}, in, random, 0.1);
        const Array b = random_array({size[2], size[1]}, in, random, 0.1);
        const Array out = random_array({size[0], size[1]}, out_dtype, random);
        const Array y = random_array(out.shape(), out_dtype, random);
        write(y, 0, 0);
        write(y, size[1] - 1, std::nan(""));
        INFO(in << " to " << out_dtype << ", size " << size << ", summed " << summed);
        const DType wide = in == DType::f64 ? DType::f64 : DType::f32;
        compare_devices(
            [&](const auto& v) {
              MatmulEpilogue epilogue;
              epilogue.drelu = true;
              epilogue.pre_activation = v[3];
              if (summed) epilogue.out_sums = Array::empty({size[1]}, wide, v[0].device());
              run_matmul(v[0], v[1], v[2], epilogue);
              if (summed)
                CHECK(column_sum_error(on_device(epilogue.out_sums, Device::cpu()),
                                       on_device(v[2], Device::cpu())) <= 8 * epsilon_of(wide));
            },
            {a, b, out, y}, 3);
      }
}

TEST_CASE("relu's gradient behind a matmul hides what it masks", "[cuda][matmul]") {
  require_gpu();
  Random random(9);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const Shape& size : {Shape{64, 128, 96}, Shape{2048, 512, 2048}}) {
      INFO(dtype << ", size " << size);
      const Array a = random_array({size[0], size[2]}, dtype, random, 0.3);
      for (int64_t i = 0; i < size[2]; ++i) write(a, 5 * size[2] + i, std::nan(""));
      const Array b = gpu_random({size[2], size[1]}, dtype, random, 0.3);
      const Array y = random_array({size[0], size[1]}, dtype, random);
      for (int64_t j = 0; j < size[1]; j += 2) write(y, 5 * size[1] + j, 0);
      const Array out = gpu_empty({size[0], size[1]}, dtype);
      MatmulEpilogue epilogue;
      epilogue.drelu = true;
      epilogue.pre_activation = on_device(y, test_gpu());
      run_matmul(on_device(a, test_gpu()), b, out, epilogue);
      const Array got = on_device(out, Device::cpu());
      int64_t wrong = 0;
      for (int64_t i = 0; i < got.numel(); ++i) {
        const bool masked = read(y, i) <= 0, lost = i / size[1] == 5;
        if (masked ? read(got, i) != 0 : std::isnan(read(got, i)) != lost) ++wrong;
      }
      CHECK(wrong == 0);
    }
}

TEST_CASE("sums of a matmul's columns agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(5);
  for (const auto& [in, out_dtype] : kDTypes)
    for (const bool dgelu : {true, false})
      for (const Shape& size : {Shape{64, 128, 96}, Shape{33, 45, 27}, Shape{512, 56, 48}}) {
        const Array a = random_array({size[0], size[2]}, in, random, 0.1);
        const Array b = random_array({size[2], size[1]}, in, random, 0.1);
        const Array out = random_array({size[0], size[1]}, out_dtype, random);
        const Array pre = random_array(out.shape(), out_dtype, random);
        INFO(in << " to " << out_dtype << ", size " << size << ", dgelu " << dgelu);
        const auto run = [&, in = in](const auto& v) {
          MatmulEpilogue epilogue;
          epilogue.dgelu = dgelu;
          if (dgelu) epilogue.pre_activation = v[3];
          epilogue.out_sums =
              Array::empty({size[1]}, in == DType::f64 ? DType::f64 : DType::f32, v[0].device());
          run_matmul(v[0], v[1], v[2], epilogue);
          CHECK(column_sum_error(on_device(epilogue.out_sums, Device::cpu()),
                                 on_device(v[2], Device::cpu())) <=
                8 * epsilon_of(epilogue.out_sums.dtype()));
        };
        compare_devices(run, {a, b, out, pre}, 3);
      }
}

TEST_CASE("sums of the rows of a agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(5);
  for (const auto& [in, out_dtype] : kDTypes)
    for (const bool transposed : {true, false})
      for (const Shape& size : {Shape{64, 128, 96}, Shape{33, 45, 27}, Shape{48, 56, 512}})
        for (const DType sums_dtype : {out_dtype, DType::f32})
          for (const float beta : {0.f, 1.f}) {
            if (in == DType::f64 && sums_dtype != DType::f64) continue;
            const Array a = transposed
                                ? random_array({size[2], size[0]}, in, random).transpose(0, 1)
                                : random_array({size[0], size[2]}, in, random);
            const Array b = random_array({size[2], size[1]}, in, random, 0.3);
            const Array out = random_array({size[0], size[1]}, out_dtype, random);
            const Array sums = random_array({size[0]}, sums_dtype, random);
            INFO(in << " to " << out_dtype << ", size " << size << ", sums " << sums_dtype
                    << ", beta " << beta << (transposed ? ", transposed" : ""));
            // Up to 512 terms in f32, in another order; a sum that cancels is compared with its
            // terms' size.
            compare_devices(
                [&](const auto& v) {
                  MatmulEpilogue epilogue;
                  epilogue.beta = beta;
                  epilogue.a_sums = v[3];
                  epilogue.a_sums_beta = beta;
                  run_matmul(v[0], v[1], v[2], epilogue);
                },
                {a, b, out, sums}, 16);
          }
}

TEST_CASE("matmuls have the same bits each time and in a graph", "[cuda][matmul]") {
  require_gpu();
  Random random(4);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Array a = gpu_random({256, 512}, dtype, random),
                b = gpu_random({512, 384}, dtype, random);
    const Array out = gpu_empty({256, 384}, dtype), pre = gpu_empty({256, 384}, dtype);
    const Array bias = gpu_random({384}, dtype, random), sums = gpu_empty({384}, DType::f32);
    check_same_bits([&] { run_matmul(a, b, out); }, {out});
    MatmulEpilogue forward;
    forward.bias = bias;
    forward.gelu = true;
    forward.pre_activation = pre;
    check_same_bits([&] { run_matmul(a, b, out, forward); }, {out, pre});
    const Array saved = gpu_random({256, 384}, dtype, random);
    MatmulEpilogue backward;
    backward.dgelu = true;
    backward.pre_activation = saved;
    backward.out_sums = sums;
    check_same_bits([&] { run_matmul(a, b, out, backward); }, {out, sums});
    MatmulEpilogue masking;
    masking.drelu = true;
    masking.pre_activation = saved;
    masking.out_sums = sums;
    check_same_bits([&] { run_matmul(a, b, out, masking); }, {out, sums});
    MatmulEpilogue summing;
    summing.a_sums = gpu_empty({256}, dtype);
    check_same_bits([&] { run_matmul(a, b, out, summing); }, {out, summing.a_sums});
    MatmulEpilogue adding;
    adding.beta = 1;
    // A long sum, which the library may split.
    const Array wide = gpu_random({64, 8192}, dtype, random);
    const Array squares = gpu_empty({64, 64}, DType::f32);
    check_same_bits([&] { run_matmul(wide, wide.transpose(0, 1), squares, adding); }, {squares});
  }
}

TEST_CASE("a matmul first met in a capture equals the eager one", "[cuda][matmul]") {
  require_gpu();
  Random random(5);
  const Array a = gpu_random({72, 136}, DType::f16, random);
  const Array b = gpu_random({136, 88}, DType::f16, random);
  const Array captured = gpu_empty({72, 88}, DType::f16), eager = gpu_empty({72, 88}, DType::f16);
  if constexpr (kCudaBuilt) {
    auto graph = cuda::CapturedGraph::capture([&] { run_matmul(a, b, captured); }, test_gpu());
    graph.replay();
  }
  run_matmul(a, b, eager);
  const bool same = bits_of(captured) == bits_of(eager);
  CHECK(same);
}

TEST_CASE("the table of matmul algorithms can be saved and read", "[cuda][matmul]") {
  require_gpu();
  Random random(6);
  const Array a = gpu_random({48, 80}, DType::f16, random);
  const Array out = gpu_empty({48, 48}, DType::f16);
  run_matmul(a, a.transpose(0, 1), out);
  if constexpr (kCudaBuilt) {
    const std::string table = cuda::export_matmul_algorithms(test_gpu());
    CHECK(cuda::import_matmul_algorithms(table, test_gpu()));
    CHECK(cuda::export_matmul_algorithms(test_gpu()) == table);
    const std::vector<std::byte> bits = bits_of(out);
    run_matmul(a, a.transpose(0, 1), out);
    const bool same = bits_of(out) == bits;
    CHECK(same);

    // Choices of other builds, which name problems by other fields, are passed over.
    for (const char* fields : {"[]", "[2,64,64,64,1,1,0]", "[2,64,64,64,1,1,0,0,0]"}) {
      std::string other = table;
      const std::string_view key = "\"own_kernels\":[";
      const size_t list = other.find(key);
      REQUIRE(list != std::string::npos);
      const size_t entry = list + key.size();
      const bool last = other.at(entry) == ']';
      other.insert(entry,
                   std::string(R"({"preferred":true,"problem":)") + fields + (last ? "}" : "},"));
      CHECK(cuda::import_matmul_algorithms(other, test_gpu()));
      CHECK(cuda::export_matmul_algorithms(test_gpu()) == table);
    }

    for (const auto& [key, inserted] :
         {std::pair("\"multiprocessors\":", "1"), std::pair("\"gpu\":\"", "Other ")}) {
      std::string foreign = table;
      const size_t place = foreign.find(key);
      REQUIRE(place != std::string::npos);
      foreign.insert(place + std::string_view(key).size(), inserted);
      CHECK_FALSE(cuda::import_matmul_algorithms(foreign, test_gpu()));
    }
    CHECK_THROWS_AS(cuda::import_matmul_algorithms(table.substr(0, table.size() / 2), test_gpu()),
                    Error);
    CHECK_THROWS_AS(cuda::import_matmul_algorithms("{}", test_gpu()), Error);
    CHECK_THROWS_WITH(cuda::import_matmul_algorithms(table + std::string("\0junk", 5), test_gpu()),
                      Catch::Contains("NUL"));
  }
}

TEST_CASE("matmul algorithms are kept on disk, and written only when they changed",
          "[cuda][matmul]") {
  require_gpu();
  namespace fs = std::filesystem;
  const fs::path folder = getenv("BINADE_CACHE");  // set by main()
  fs::remove_all(folder);
  Random random(7);
  const Array a = gpu_random({56, 88}, DType::f16, random);
  run_matmul(a, a.transpose(0, 1), gpu_empty({56, 56}, DType::f16));
  if constexpr (kCudaBuilt) {
    cuda::save_algorithm_cache(test_gpu());
    REQUIRE(std::distance(fs::directory_iterator(folder), {}) == 1);
    const fs::path file = fs::directory_iterator(folder)->path();
    CHECK(read_text_file(file) == cuda::export_matmul_algorithms(test_gpu()));
    fs::remove(file);
    cuda::save_algorithm_cache(test_gpu());
    CHECK_FALSE(fs::exists(file));
    run_matmul(a.slice(0, 0, 40), a.transpose(0, 1), gpu_empty({40, 56}, DType::f16));
    cuda::save_algorithm_cache(test_gpu());
    CHECK(read_text_file(file) == cuda::export_matmul_algorithms(test_gpu()));
  }
}

TEST_CASE("f32 matmuls keep all of f32 unless TF32 is allowed", "[cuda][matmul]") {
  require_gpu();
  // 1 + 2^-12 is lost in TF32's 10 bits.
  const Array a = Array::full({64, 64}, 1 + 0x1p-12, DType::f32, test_gpu());
  const Array b = Array::full({64, 64}, 1, DType::f32, test_gpu());
  const Array out = gpu_empty({64, 64}, DType::f32);
  run_matmul(a, b, out);
  CHECK(read(on_device(out, Device::cpu()), 0) == 64 + 64 * 0x1p-12);
  if constexpr (kCudaBuilt) {
    cuda::set_allow_tf32(true);
    run_matmul(a, b, out);
    cuda::set_allow_tf32(false);
    CHECK(std::abs(read(on_device(out, Device::cpu()), 0) - 64) <= 64 * 0x1p-10);
  }
}

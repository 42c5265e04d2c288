// Scans of long columns, whose blocks wait for each other.
#include <binade/core/kernels/reduce.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

TEST_CASE("sums down long columns agree on both devices and have the same bits in every run",
          "[cuda][reduce]") {
  require_gpu();
  Random random(71);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const int64_t width : {64, 528}) {  // one column of tiles: all wait for one another
      INFO(dtype << ", " << width << " columns");
      const Array x = Array::empty({9000, width}, dtype);
      for (int64_t i = 0; i < x.numel(); ++i)
        write(x, i, static_cast<double>(random() % 64) / 1024 - 0.03125);
      compare_devices(
          [](const auto& v) { BINADE_DISPATCH(v[0].device(), cumsum(v[0], 0, false, v[1])); },
          {x, Array::zeros(x.shape(), dtype)}, 40);
      const Array on_gpu = on_device(x, test_gpu());
      std::vector<Array> sums;
      for (int run = 0; run < 4; ++run) {
        sums.push_back(Array::zeros(x.shape(), dtype, test_gpu()));
        BINADE_DISPATCH(on_gpu.device(), cumsum(on_gpu, 0, false, sums.back()));
        CHECK(difference(on_device(sums[0], Device::cpu()),
                         on_device(sums.back(), Device::cpu())) == 0);
      }
    }
}

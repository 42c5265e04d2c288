#include <binade/core/kernels/cuda/matmul/matmul_plan.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/libraries.h>
#include <binade/core/cuda/library_handles.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/json_view.h>

namespace binade::kernels::cuda {

using binade::cuda::check_cublas;
using binade::cuda::check_cuda;

namespace {

constexpr int kSuggestions = 16;
constexpr int kTimedRuns = 5;
constexpr float kScreening = 1.15f;  // what is slower than the best by more in one run is dropped
// Workspace has to be cleared by a fill in front of the matmul. That takes 0.8 µs, and in a
// replayed graph the gaps around it some 3 more, which the stopwatch does not see.
constexpr float kWorkspaceCost = 2.5e-3f;                    // ms
constexpr uint64_t kMaxWorkspaceBytes = uint64_t{32} << 20;  // what NVIDIA advises for Hopper

constexpr size_t kProblemFields = sizeof(MatmulProblem) / sizeof(int64_t);
constexpr size_t kAlgorithmWords = sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t);
using ProblemFields = std::array<int64_t, kProblemFields>;
using FusedFields = std::array<int64_t, sizeof(FusedProblem) / sizeof(int64_t)>;
using AlgorithmWords = std::array<uint64_t, kAlgorithmWords>;

// No algorithm means that cuBLASLt has none for the problem.
struct AlgorithmTable {
  std::mutex mutex;
  std::map<MatmulProblem, std::optional<MatmulAlgorithm>> entries;
  std::map<FusedProblem, bool> own_kernels;  // whether they are preferred
};

// The table of the current device. Devices of one kind share it: what one has timed serves the
// others.
AlgorithmTable& algorithm_table() {
  static std::mutex mutex;
  static std::map<std::string, AlgorithmTable> tables;  // by the device's name
  const std::lock_guard lock(mutex);
  return tables[binade::cuda::device_properties().name];
}

cudaDataType_t type_of(int64_t value) {
  return static_cast<cudaDataType_t>(value);
}

// cuBLASLt's descriptors of a problem, held on the stack.
class Descriptors {
 public:
  Descriptors(const MatmulProblem& p, const MatmulOperands& operands) {
    const cudaDataType_t scale_type =
        type_of(p.output_type) == CUDA_R_64F ? CUDA_R_64F : CUDA_R_32F;
    check_cublas(cublasLtMatmulDescInit(
                     &operation_, static_cast<cublasComputeType_t>(p.compute_type), scale_type),
                 "cublasLtMatmulDescInit");
    set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t{p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N});
    set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t{p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N});
    if (p.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(p.epilogue));
      if (operands.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
      if (operands.aux) {
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.aux);
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.ld_aux);
        if (p.batch > 1) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, p.stride_aux);
      }
    }
    init(&a_, type_of(p.input_type), p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda,
         p.batch, p.stride_a);
    init(&b_, type_of(p.input_type), p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb,
         p.batch, p.stride_b);
    init(&d_, type_of(p.output_type), p.m, p.n, p.ldd, p.batch, p.stride_d);
  }

  cublasLtMatmulDesc_t operation() { return &operation_; }
  cublasLtMatrixLayout_t a() { return &a_; }
  cublasLtMatrixLayout_t b() { return &b_; }
  cublasLtMatrixLayout_t d() { return &d_; }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check_cublas(cublasLtMatmulDescSetAttribute(&operation_, attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute");
  }

  static void init(cublasLtMatrixLayout_t layout, cudaDataType_t type, int64_t rows, int64_t cols,
                   int64_t ld, int64_t batch, int64_t batch_stride) {
    check_cublas(cublasLtMatrixLayoutInit(layout, type, static_cast<uint64_t>(rows),
                                          static_cast<uint64_t>(cols), ld),
                 "cublasLtMatrixLayoutInit");
    if (batch == 1) return;
    const int32_t count = static_cast<int32_t>(batch);
    check_cublas(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                  &count, sizeof(count)),
                 "cublasLtMatrixLayoutSetAttribute");
    check_cublas(
        cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                         &batch_stride, sizeof(batch_stride)),
        "cublasLtMatrixLayoutSetAttribute");
  }

  cublasLtMatmulDescOpaque_t operation_;
  cublasLtMatrixLayoutOpaque_t a_, b_, d_;
};

cublasStatus_t queue_matmul(const MatmulProblem& problem, const MatmulOperands& operands,
                            Descriptors& descriptors, const MatmulAlgorithm& algorithm) {
  const float factors_f32[] = {1, static_cast<float>(problem.accumulate)};
  const double factors_f64[] = {1, static_cast<double>(problem.accumulate)};
  const bool f64 = type_of(problem.output_type) == CUDA_R_64F;
  const void* alpha = f64 ? static_cast<const void*>(&factors_f64[0]) : &factors_f32[0];
  const void* beta = f64 ? static_cast<const void*>(&factors_f64[1]) : &factors_f32[1];
  Array scratch;
  if (algorithm.workspace_bytes > 0) scratch = binade::cuda::workspace(algorithm.workspace_bytes);
  return cublasLtMatmul(
      binade::cuda::cublaslt_handle(), descriptors.operation(), alpha, operands.a, descriptors.a(),
      operands.b, descriptors.b(), beta, operands.d, descriptors.d(), operands.d, descriptors.d(),
      &algorithm.algorithm, scratch.defined() ? scratch.data() : nullptr,
      static_cast<size_t>(algorithm.workspace_bytes), binade::cuda::current_stream());
}

// cuBLASLt's suggestions with so much workspace, best first.
std::vector<MatmulAlgorithm> suggest(const MatmulProblem& problem, Descriptors& descriptors,
                                     uint64_t workspace_bytes) {
  cublasLtMatmulPreferenceOpaque_t preference;
  check_cublas(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_cublas(
        cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
        "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  // Split-K may only add up in f32: the other schemes round partial sums to the output's type.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(attribute, static_cast<uint32_t>(problem.alignment));

  std::array<cublasLtMatmulHeuristicResult_t, kSuggestions> results{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      binade::cuda::cublaslt_handle(), descriptors.operation(), descriptors.a(), descriptors.b(),
      descriptors.d(), descriptors.d(), &preference, kSuggestions, results.data(), &count);
  std::vector<MatmulAlgorithm> algorithms;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
    return algorithms;
  check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
  for (int i = 0; i < count; ++i)
    if (results[i].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back({results[i].algo, static_cast<int64_t>(results[i].workspaceSize)});
  return algorithms;
}

binade::cuda::Event make_event() {
  binade::cuda::Event event;
  check_cuda(cudaEventCreate(event.put()), "cudaEventCreate");
  return event;
}

// Times algorithms one run at a time. With a cold L2 cache unless told otherwise, as matmuls in a
// training step find it: their operands come from memory, and algorithms differ in how well they
// hide that.
class Stopwatch {
 public:
  explicit Stopwatch(bool cold = true)
      : cold_(cold),
        flushed_(binade::cuda::workspace(
            2 * static_cast<int64_t>(binade::cuda::device_properties().l2_bytes))) {}

  // Milliseconds of one run of `work`; waits for it.
  template <class Work>
  float time(const Work& work) {
    const cudaStream_t stream = binade::cuda::current_stream();
    check_cuda(cudaMemsetAsync(flushed_.data(), 0, static_cast<size_t>(flushed_.bytes()), stream),
               "cudaMemsetAsync");
    // The GPU is busy until all is queued in either case.
    if (!cold_) work();
    check_cuda(cudaEventRecord(start_.get(), stream), "cudaEventRecord");
    work();
    check_cuda(cudaEventRecord(stop_.get(), stream), "cudaEventRecord");
    binade::cuda::note_host_synchronisation();
    check_cuda(cudaEventSynchronize(stop_.get()), "cudaEventSynchronize");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, start_.get(), stop_.get()),
               "cudaEventElapsedTime");
    return milliseconds;
  }

  // Their median over some runs.
  template <class Work>
  float median_time(const Work& work) {
    std::array<float, kTimedRuns> times;
    for (float& t : times) t = time(work);
    std::nth_element(times.begin(), times.begin() + kTimedRuns / 2, times.end());
    return times[kTimedRuns / 2];
  }

 private:
  bool cold_;
  Array flushed_;
  binade::cuda::Event start_ = make_event(), stop_ = make_event();
};

// The fastest of `algorithms`; nothing if none runs.
std::optional<MatmulAlgorithm> fastest(const MatmulProblem& problem, MatmulOperands operands,
                                       Descriptors& descriptors,
                                       const std::vector<MatmulAlgorithm>& algorithms) {
  // What the matmul would add to, or may read as GELU's input, must survive the timing.
  Array scratch;
  const bool overwrites = !problem.accumulate &&
                          (problem.epilogue & CUBLASLT_EPILOGUE_DGELU) != CUBLASLT_EPILOGUE_DGELU;
  if (!overwrites) {
    const int64_t element = type_of(problem.output_type) == CUDA_R_64F   ? 8
                            : type_of(problem.output_type) == CUDA_R_32F ? 4
                                                                         : 2;
    const int64_t elements =
        (problem.batch - 1) * problem.stride_d + (problem.n - 1) * problem.ldd + problem.m;
    scratch = binade::cuda::workspace(elements * element);
    operands.d = scratch.data();
  }
  Stopwatch stopwatch;
  const auto run = [&](const MatmulAlgorithm& algorithm) {
    check_cublas(queue_matmul(problem, operands, descriptors, algorithm), "cublasLtMatmul");
  };
  struct Candidate {
    const MatmulAlgorithm* algorithm;
    float time;
  };
  std::vector<Candidate> candidates;
  for (const MatmulAlgorithm& algorithm : algorithms)  // the first run loads the kernel
    if (queue_matmul(problem, operands, descriptors, algorithm) == CUBLAS_STATUS_SUCCESS)
      candidates.push_back({&algorithm, stopwatch.time([&] { run(algorithm); })});
  if (candidates.empty()) return std::nullopt;
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.time < b.time; };
  const float best = std::min_element(candidates.begin(), candidates.end(), faster)->time;
  std::erase_if(candidates, [&](const Candidate& c) { return c.time > kScreening * best; });
  if (candidates.size() == 1) return *candidates.front().algorithm;
  for (Candidate& candidate : candidates)
    candidate.time = stopwatch.median_time([&] { run(*candidate.algorithm); }) +
                     (candidate.algorithm->workspace_bytes > 0 ? kWorkspaceCost : 0);
  return *std::min_element(candidates.begin(), candidates.end(), faster)->algorithm;
}

// Whether what the matmul reads and writes is in the L2 cache when it comes: it fits in half of it,
// and the step's kernel in front has just used it.
bool stays_in_cache(const FusedProblem& problem) {
  const int64_t element = problem.type == CUDA_R_32F ? 4 : 2;
  const int64_t outputs = problem.m * problem.n * (1 + problem.has_input);
  const int64_t bytes = element * (problem.m * problem.k + problem.k * problem.n + outputs);
  return 2 * bytes <= static_cast<int64_t>(binade::cuda::device_properties().l2_bytes);
}

}  // namespace

std::optional<MatmulAlgorithm> choose_algorithm(const MatmulProblem& problem,
                                                const MatmulOperands& operands) {
  AlgorithmTable& table = algorithm_table();
  {
    const std::lock_guard lock(table.mutex);
    const auto entry = table.entries.find(problem);
    if (entry != table.entries.end()) return entry->second;
  }
  Descriptors descriptors(problem, operands);
  std::vector<MatmulAlgorithm> suggestions = suggest(problem, descriptors, kMaxWorkspaceBytes);
  std::optional<MatmulAlgorithm> choice;
  if (!suggestions.empty()) choice = suggestions.front();
  if (!binade::cuda::deterministic() && !binade::cuda::is_capturing()) {
    // The library suggests what needs no workspace only if there is none.
    const std::vector<MatmulAlgorithm> lean = suggest(problem, descriptors, 0);
    suggestions.insert(suggestions.end(), lean.begin(), lean.end());
    if (suggestions.size() > 1) choice = fastest(problem, operands, descriptors, suggestions);
  }
  const std::lock_guard lock(table.mutex);
  // Of two threads that asked at once, the first one's answer counts for both.
  return table.entries.emplace(problem, choice).first->second;
}

void launch_matmul(const MatmulProblem& problem, const MatmulOperands& operands,
                   const MatmulAlgorithm& algorithm) {
  Descriptors descriptors(problem, operands);
  check_cublas(queue_matmul(problem, operands, descriptors, algorithm), "cublasLtMatmul");
}

bool prefers_own_kernel(const FusedProblem& problem, const std::function<bool()>& own,
                        const std::function<void()>& library) {
  AlgorithmTable& table = algorithm_table();
  {
    const std::lock_guard lock(table.mutex);
    const auto entry = table.own_kernels.find(problem);
    if (entry != table.own_kernels.end()) return entry->second;
  }
  bool choice = true;
  if (!binade::cuda::deterministic() && !binade::cuda::is_capturing()) {
    if (!own()) return false;
    library();  // as above, the first runs load the kernels
    Stopwatch stopwatch(/*cold=*/!stays_in_cache(problem));
    choice = stopwatch.median_time(own) <= stopwatch.median_time(library);
  }
  const std::lock_guard lock(table.mutex);
  return table.own_kernels.emplace(problem, choice).first->second;
}

}  // namespace binade::kernels::cuda

namespace binade::cuda {

using kernels::cuda::AlgorithmWords;
using kernels::cuda::FusedFields;
using kernels::cuda::FusedProblem;
using kernels::cuda::MatmulAlgorithm;
using kernels::cuda::MatmulProblem;
using kernels::cuda::ProblemFields;

namespace {

// What must agree for a table to be of use.
nlohmann::json table_origin() {
  const DeviceProperties& device = device_properties();
  return {{"cublaslt", cublasLtGetVersion()},
          {"gpu", device.name},
          {"compute_capability", device.major * 10 + device.minor},
          {"multiprocessors", device.multiprocessors}};
}

}  // namespace

std::string export_matmul_algorithms(Device device) {
  const DeviceScope scope(device);
  kernels::cuda::AlgorithmTable& table = kernels::cuda::algorithm_table();
  nlohmann::json entries = nlohmann::json::array();
  const std::lock_guard lock(table.mutex);
  for (const auto& [problem, choice] : table.entries) {
    nlohmann::json entry = {{"problem", std::bit_cast<ProblemFields>(problem)}};
    if (choice) {
      entry["algorithm"] = std::bit_cast<AlgorithmWords>(choice->algorithm);
      entry["workspace_bytes"] = choice->workspace_bytes;
    }
    entries.push_back(std::move(entry));
  }
  nlohmann::json own_kernels = nlohmann::json::array();
  for (const auto& [problem, preferred] : table.own_kernels)
    own_kernels.push_back(
        {{"problem", std::bit_cast<FusedFields>(problem)}, {"preferred", preferred}});
  return nlohmann::json{{"origin", table_origin()},
                        {"entries", std::move(entries)},
                        {"own_kernels", std::move(own_kernels)}}
      .dump();
}

bool import_matmul_algorithms(std::string_view text, Device device) {
  const DeviceScope scope(device);
  std::map<MatmulProblem, std::optional<MatmulAlgorithm>> entries;
  std::map<FusedProblem, bool> own_kernels;
  const nlohmann::json table = parse_json(text, "the table of matmul algorithms");
  try {
    if (table.at("origin") != table_origin()) return false;
    for (const nlohmann::json& entry : table.at("entries")) {
      std::optional<MatmulAlgorithm> choice;
      if (entry.contains("algorithm"))
        choice = MatmulAlgorithm{
            std::bit_cast<cublasLtMatmulAlgo_t>(entry.at("algorithm").get<AlgorithmWords>()),
            entry.at("workspace_bytes").get<int64_t>()};
      entries.emplace(std::bit_cast<MatmulProblem>(entry.at("problem").get<ProblemFields>()),
                      choice);
    }
    // Tables of other builds have none, or name problems by other fields, which are timed anew.
    for (const nlohmann::json& entry : table.value("own_kernels", nlohmann::json::array()))
      if (entry.at("problem").size() == FusedFields{}.size())
        own_kernels.emplace(std::bit_cast<FusedProblem>(entry.at("problem").get<FusedFields>()),
                            entry.at("preferred").get<bool>());
  } catch (const nlohmann::json::exception& error) {
    fail("the table of matmul algorithms cannot be read: ", error.what());
  }
  kernels::cuda::AlgorithmTable& own = kernels::cuda::algorithm_table();
  const std::lock_guard lock(own.mutex);
  for (auto& [problem, choice] : entries) own.entries.insert_or_assign(problem, choice);
  for (const auto& [problem, preferred] : own_kernels)
    own.own_kernels.insert_or_assign(problem, preferred);
  return true;
}

}  // namespace binade::cuda

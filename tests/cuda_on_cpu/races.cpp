// Runs each kernel once on a few weights, for the thread sanitizer. The argument is the number of a barrier to leave out,
// -1 for none.
#include <cstdio>
#include <vector>

#include "kernel.cpp"

int main(int, char** arguments) {
  using namespace faultsim;
  cuda_on_cpu::left_out = std::atoi(arguments[1]);
  constexpr uint64_t kWeights = 2 * kBlockBytes;
  constexpr uint32_t kChips = 3;
  const std::vector<int8_t> source(kWeights, 85);
  const std::vector<float> scales(5, 0.25f);
  const std::vector<int64_t> seeds = {1, 2, 3};
  std::vector<uint64_t> table = {1500, 0};  // 1,500 to 1,600 hits: every warp has some, and some cells have two
  for (uint64_t i = 1; i <= 100; ++i) table.push_back(i << 57);
  alignas(16) static char output[4 * kChips * kWeights], value[kChips * kWeights];
  for (int kind = 0; kind < 3; ++kind) {
    for (int type = 0; type < 5; ++type) {
      for (uint64_t base : {0, 100}) {  // whole blocks, and parts of three
        Job job{};
        job.source = source.data();
        job.output = output;
        job.value = reinterpret_cast<uint8_t*>(value);
        job.weights = kWeights;
        job.chips = kChips;
        job.type = static_cast<Output>(type);
        job.scales = scales.data();
        job.scale_count = scales.size();
        job.scale_run = 9;
        job.table = {table.data(), static_cast<uint32_t>(table.size() - 2)};
        job.rule = {static_cast<Kind>(kind), 1ull << 31};
        job.map = {base, 0, 1, 1};
        job.seeds = seeds.data();
        if (const std::string error = launch_cuda(job, 0, nullptr); !error.empty()) {
          std::fprintf(stderr, "%s\n", error.c_str());
          return 1;
        }
      }
    }
  }
}

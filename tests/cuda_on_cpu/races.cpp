// Runs each kernel once on a few weights, for the thread sanitizer. The argument is the number of a barrier to leave
// out, -1 for none.
#include <cstdio>
#include <vector>

#include "kernel.cpp"

static void run(const faultsim::Job& job) {
  if (const std::string error = faultsim::launch_cuda(job, 0, nullptr); !error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::exit(1);
  }
}

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
  // As many numbers as 21 in each word of 64 bits.
  alignas(16) static char output[4 * kChips * kWeights / 8 * 21], value[kChips * kWeights];
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
        run(job);
        if (job.type == Output::int8 || job.type == Output::mask) continue;
        job.map.base = base / 8 * 8;
        job.format = {Number::integer, 3, 3, 4, -4, Nonfinite::keep};
        job.numbers = kWeights / 8 * 21;
        run(job);
        job.format = {Number::float16, 16, 16, 0, 0, Nonfinite::clamp};
        job.numbers = kWeights / 2;
        run(job);
      }
    }
  }
  // A protected memory: cells of two rates, and two check bytes a word.
  const std::vector<uint8_t> checks(kWeights / 4, 1);
  const std::vector<uint64_t> flip(512, 3), keep(512, ~0ull);
  for (int kind = 0; kind < 3; ++kind) {
    ProtectedJob job{};
    job.read.source = source.data();
    job.read.output = output;
    job.read.weights = kWeights;
    job.read.chips = kChips;
    job.read.rule = {static_cast<Kind>(kind), 1ull << 31};
    job.read.map = {104, 1, 32, 3};
    job.read.seeds = seeds.data();
    job.codec.decode = Decode::code;
    job.codec.syndromes = job.codec.check_bytes = 2;
    job.codec.flip = flip.data();
    job.codec.keep = keep.data();
    job.checks = checks.data();
    job.check_base = 1ull << 42;
    job.check_table = {table.data(), static_cast<uint32_t>(table.size() - 2)};
    job.parts[0] = {0x0F0F0F0F0F0F0F0Full, job.check_table};
    job.parts[1] = {0xF0F0F0F0F0F0F0F0ull, job.check_table};
    job.part_count = 2;
    if (const std::string error = launch_protected_cuda(job, 0, nullptr); !error.empty()) {
      std::fprintf(stderr, "%s\n", error.c_str());
      return 1;
    }
  }
}

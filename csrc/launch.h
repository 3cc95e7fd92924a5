// What the launchers are asked to do: plain structs, no framework, no ownership. The caller allocates,
// the launcher fills. All pointers of one Job are of the device it is launched on.
#pragma once

#include <cstdint>

#include "fault.h"

namespace faultsim {

enum class Output : int32_t { int8 = 0, float32 = 1, bfloat16 = 2, float16 = 3, mask = 4 };

struct Job {
  const int8_t* source;  // [weights]; not read for Output::mask
  void* output;          // [chips, weights]
  uint8_t* states;       // [chips, weights], Output::mask only: state bits of the failing cells
  uint64_t weights;
  uint32_t chips;
  Output type;

  const float* scales;  // [scale_count]: weight i has scale (i / scale_run) % scale_count
  uint64_t scale_count;
  uint64_t scale_run;

  DrawTable table;
  StateRule rule;
  Placement placement;
  const int64_t* seeds;         // [chips], the bits of a 64-bit seed
  const int64_t* array_offset;  // one number, added to every array index; may be null
  const int64_t* access;        // one number, the index of this read (transient); may be null
};

// Returns nothing: cannot fail. `threads` >= 1; `path` is one of cpu_paths().
void launch_cpu(const Job& job, int threads, const char* path);

// Names of the vector paths this processor can run, best first; "portable" is always the last.
const char* const* cpu_paths(int* count);

// Enqueues on `stream` (a cudaStream_t) of `device`; returns nullptr, or what CUDA says went wrong.
const char* launch_cuda(const Job& job, int device, void* stream);
bool built_with_cuda();

}  // namespace faultsim

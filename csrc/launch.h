// The interface of the launchers: plain structs, no framework, no ownership. The caller allocates, the launcher fills.
// All pointers of one Job belong to the device that it is launched on.
#pragma once

#include <cstdint>
#include <string>

#include "fault.h"
#include "format.h"

namespace faultsim {

enum class Output : int32_t { int8 = 0, float32 = 1, bfloat16 = 2, float16 = 3, mask = 4 };
constexpr const char* kOutputNames[] = {"int8", "float32", "bfloat16", "float16", "mask"};

// The format of a number of floating-point output.
static FAULTSIM_HD Number number_of(Output type) {
  return type == Output::bfloat16 ? Number::bfloat16 : type == Output::float16 ? Number::float16 : Number::float32;
}

// The failing cells of a measured memory, as hits (fault.h): those of block b are cell[begin[b]] ... cell[begin[b + 1]
// - 1].
struct CellLists {
  const uint16_t* stuck;  // the spare bit says at what
  const int64_t* stuck_begin;
  const uint16_t* inverted;
  const int64_t* inverted_begin;
  uint64_t blocks;  // 0: nothing was measured, faults are drawn
};

struct Job {
  const int8_t* source;  // [weights]; not used for Output::mask, may be null there
  void* output;          // [chips, weights]; Output::mask: which cells fail
  uint8_t* value;        // [chips, weights], Output::mask only (otherwise it may be null): their values
  uint64_t weights;
  uint32_t chips;
  Output type;

  const float* scales;  // [scale_count]: weight i has scale (i / scale_run) % scale_count
  uint64_t scale_count;
  uint64_t scale_run;

  Format format;         // of the source; if it is not int8, `weights` counts the bytes of a memory image,
  uint64_t numbers;      // and a row of float output has so many numbers
  const float* centers;  // [scale_count], added after scaling; may be null

  HitTable table;
  ValueRule rule;
  AddressMap map;
  const int64_t* seeds;         // [chips], the bits of a 64-bit seed
  const int64_t* block_offset;  // one number, added to every block index; may be null
  const int64_t* access;        // one number, the index of this read (transient); may be null
  CellLists measured;           // on CPUs only, of one chip; then the rule is "stuck", and no faults are drawn
};

// Cannot fail. `threads` >= 1; `path` is one of cpu_paths(). Threads are started for each call, one for 256 k weights
// at most: less work costs more to hand out than it takes.
void launch_cpu(const Job& job, int threads, const char* path);

// Names of the vector paths that this processor can run, best first; "portable" is always the last.
const char* const* cpu_paths(int* count);

// Enqueues the kernel on `stream` (a cudaStream_t) of `device`. Returns the error, or an empty string.
std::string launch_cuda(const Job& job, int device, void* stream);
bool built_with_cuda();

}  // namespace faultsim

// One vector path of the CPU launcher: the four inner loops, as a table of functions.
#pragma once

#include <cstdint>

#include "fault.h"

namespace faultsim {

// The faults of one array, 8 KiB. What a read returns is (stored & ~clear) ^ set with, for
//   flip:       set = failing cells; clear is not used;
//   stuck:      clear = failing cells, set = those of them that are stuck at 1;
//   transient:  set = failing cells that read wrong this time; clear = failing cells, not to be applied.
struct ArrayFaults {
  alignas(64) uint64_t set[kArrayWords] = {};
  alignas(64) uint64_t clear[kArrayWords] = {};
  // With few hits, the words they touched (a word may come twice): a read is then a copy and a few repairs.
  static constexpr uint32_t kFew = 64;
  uint32_t touched = 0;  // kFew + 1: more than few, not listed
  uint16_t word[kFew];
};

struct CpuPath {
  const char* name;
  void (*draw)(uint64_t seed, uint32_t array, uint32_t access, DrawTable, StateRule, ArrayFaults*);
  // `count` <= 4096 bytes; `stream`: the output won't be read again soon, so don't fill the cache with it.
  void (*flip)(const int8_t* source, const uint8_t* set, int8_t* output, uint32_t count, bool stream);
  void (*stick)(const int8_t* source, const uint8_t* set, const uint8_t* clear, int8_t* output, uint32_t count,
                bool stream);
  void (*to_float32)(const int8_t* source, float scale, float* output, uint32_t count);
  void (*to_bfloat16)(const int8_t* source, float scale, uint16_t* output, uint32_t count);
  void (*to_float16)(const int8_t* source, float scale, uint16_t* output, uint32_t count);
};

namespace portable {
extern const CpuPath path;
}
#if defined(FAULTSIM_X86)
namespace avx2 {
extern const CpuPath path;
}
namespace avx512 {
extern const CpuPath path;
}
#endif

}  // namespace faultsim

// One vector path of the CPU launcher: the inner loops, as a table of functions.
#pragma once

#include <cstdint>

#include "cpu_codec.h"
#include "cpu_format.h"
#include "fault.h"

namespace faultsim {

// The faults of one block, 8 KiB: fail and value as in fault.h.
struct BlockFaults {
  alignas(64) uint64_t fail[kBlockWords] = {};
  alignas(64) uint64_t value[kBlockWords] = {};
  // With few hits, the words that they touched (a word may be listed twice): a read is then a copy and a few repairs.
  static constexpr uint32_t kFew = 64;
  uint32_t touched = 0;  // kFew + 1: more than few, not listed
  uint16_t word[kFew];
};

struct CpuPath {
  const char* name;
  void (*draw)(uint64_t seed, uint32_t block, uint32_t access, HitTable, ValueRule, BlockFaults*);
  // read_word() of `count` <= 4,096 bytes; `fail` may be null for transient faults, `value` for flips. `stream`: the
  // output will not be read again soon, so it bypasses the cache.
  void (*read)(Kind kind, const int8_t* source, const uint8_t* fail, const uint8_t* value, int8_t* output,
               uint32_t count, bool stream);
  void (*to_float32)(const int8_t* source, float scale, float* output, uint32_t count);
  void (*to_bfloat16)(const int8_t* source, float scale, uint16_t* output, uint32_t count);
  void (*to_float16)(const int8_t* source, float scale, uint16_t* output, uint32_t count);
  const FormatPath* formats;
  const CodecPath* codecs;
};

// The path of that name; the portable one if there is none.
const CpuPath& path_named(const char* name);

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

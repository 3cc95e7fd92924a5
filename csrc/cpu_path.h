// One vector path of the CPU launcher: the inner loops, as a table of functions.
#pragma once

#include <cstdint>

#include "cpu_codec.h"
#include "cpu_format.h"
#include "fault.h"

namespace faultsim {

// Hits of one block, in the order of their stream. The spare bit of each says the value that its cell reads.
struct HitList {
  static constexpr uint32_t kMany = 64;  // more are worth vectors or masks
  const uint16_t* hit;
  uint32_t count;
};

// The hits of several successive blocks, which are drawn together.
struct DrawnHits {
  static constexpr uint32_t kMostBlocks = 8;
  static constexpr uint32_t kHalves = 2176;
  static constexpr uint32_t kFirst = 28;    // the first hit of a block: those of call 1 begin a cache line
  alignas(64) uint16_t half[kHalves + 32];  // more than they hold, since calls are made several at a time
  uint32_t count[kMostBlocks];
  uint32_t stride;  // halves of a block

  // The stride for so many hits, a whole number of cache lines.
  static constexpr uint32_t stride_for(uint32_t most_hits) { return (kFirst + most_hits + 31) / 32 * 32; }
  HitList of(uint32_t block) const { return {half + block * stride + kFirst, count[block]}; }
};

// The faults of one block, 8 KiB: fail and value as in fault.h.
struct BlockFaults {
  alignas(64) uint64_t fail[kBlockWords] = {};
  alignas(64) uint64_t value[kBlockWords] = {};
  // With few hits, the words that they touched (a word may be listed twice).
  static constexpr uint32_t kFew = 64;
  uint32_t touched = 0;  // kFew + 1: more than few, not listed
  uint16_t word[kFew];

  const uint8_t* fail_bytes() const { return reinterpret_cast<const uint8_t*>(fail); }
  const uint8_t* value_bytes() const { return reinterpret_cast<const uint8_t*>(value); }
};

struct CpuPath {
  const char* name;
  // The hits of `count` blocks of one chip from `block` on. hits->stride is large enough for any of them.
  void (*draw_hits)(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable, ValueRule,
                    DrawnHits* hits);
  // The same, and `bytes` weights from the first block's byte `from` on, as they are read: a copy that goes on while
  // hits are drawn and while blocks that are copied already are repaired.
  void (*read_drawn)(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable, ValueRule, uint32_t from,
                     uint32_t bytes, const uint8_t* source, uint8_t* output, DrawnHits* hits);
  // The same of whole blocks with many hits, which are drawn one by one. `mask` is a block, all 0 before and after.
  void (*read_one_by_one)(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable, ValueRule,
                          const uint8_t* source, uint8_t* mask, uint8_t* output, DrawnHits* hits,
                          DrawnHits* hits_before);
  // The faults of one block of a chip. `faults` are those of an earlier draw of the same kind, or none.
  void (*draw)(uint64_t seed, uint32_t block, uint32_t access, HitTable, ValueRule, BlockFaults* faults);

  // The functions below work on `count` weights (at most 4,096) that begin `from` bytes behind the block's first.

  // Marks hits in masks of `count` bytes, which keep what is marked in them already.
  void (*mark)(HitList hits, bool values, uint32_t from, uint32_t count, uint8_t* fail, uint8_t* value);
  // Turns a copy of `source` into what is read. source == output: reads in place.
  void (*repair)(Kind kind, HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output);
  // The same of a whole block, faster where it has many flips or transient faults: through a mask of the block that is
  // all 0 before and after.
  void (*read_marked)(Kind kind, HitList hits, const uint8_t* source, uint8_t* mask, uint8_t* output);
  // read_word(); masks from the first weight on. `fail` may be null for transient faults, `value` for flips.
  void (*read)(Kind kind, const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output,
               uint32_t count);
  // The same for the masks of a block whose words are repeated; `from` counts weights of the span.
  void (*read_repeated)(Kind kind, const AddressMap& map, uint32_t from, const uint8_t* source,
                        const BlockFaults& faults, uint8_t* output, uint32_t count);
  // A copy that bypasses the cache: the output will not be read again soon.
  void (*copy_past_cache)(const uint8_t* source, uint8_t* output, uint32_t count);

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

// One vector path of codecs: the inner loops, as a table of functions.
#pragma once

#include <cstdint>

#include "codec.h"

namespace faultsim {

// Each byte of the syndrome, by the values of the bytes of a word, and by those of their halves.
struct CodeTables {
  alignas(64) uint8_t byte[kMostCheckBytes][8][256] = {};
  alignas(64) uint8_t half[kMostCheckBytes][16][16] = {};
  alignas(64) uint8_t rows[kMostCheckBytes][8][8][16] = {};  // the bytes of each row of the code, each 16 times
};

struct CodecPath {
  // Decodes `count` <= 512 words in place. `checks` as read, [count, check_bytes]; `again` may be null.
  void (*decode)(const Codec& codec, const CodeTables& tables, const uint64_t* written, const uint8_t* checks,
                 uint64_t* read, uint8_t* again, uint32_t count);
};

namespace portable {
extern const CodecPath codec_path;
}
#if defined(FAULTSIM_X86)
namespace avx2 {
extern const CodecPath codec_path;
}
namespace avx512 {
extern const CodecPath codec_path;
}
#endif

}  // namespace faultsim

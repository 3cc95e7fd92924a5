// One vector path of decoding: the inner loops, as a table of functions.
#pragma once

#include <cstdint>

#include "format.h"

namespace faultsim {

enum class Output : int32_t;

struct FormatPath {
  static constexpr uint32_t kSlack = 8;  // bytes behind its output that unpack() may write to

  // Whole words -> q of every weight in them.
  void (*unpack)(const Format& format, const uint8_t* image, uint32_t words, int8_t* q);
  // scale * q + center, rounded after each.
  void (*affine)(const int8_t* q, float scale, float center, float* values, uint32_t count);
  // Codes of a floating-point format -> float32, with a policy; only 8-bit formats are scaled. `limit`: limit_of().
  void (*widen)(Number number, Nonfinite policy, const uint8_t* codes, float scale, uint32_t limit, float* values,
                uint32_t count);
  // float32 -> bfloat16 or float16; a NaN must be kQuietNan.
  void (*narrow)(Output type, const float* values, uint16_t* output, uint32_t count);
  // The policy for numbers that have their type already.
  void (*settle)(Nonfinite policy, Output type, void* numbers, uint32_t count);
};

namespace portable {
extern const FormatPath format_path;
}
#if defined(FAULTSIM_X86)
namespace avx2 {
extern const FormatPath format_path;
}
namespace avx512 {
extern const FormatPath format_path;
}
#endif

}  // namespace faultsim

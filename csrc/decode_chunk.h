// From the bytes of a chunk, as a chip reads them, to numbers: pieces that stay in the L1 cache, cut where the scale
// changes.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu_path.h"
#include "launch.h"

namespace faultsim {

class Decoder {
 public:
  Decoder(const Job& job, const CpuPath& path) : job_(job), path_(path), formats_(*path.formats) {
    const Number number = job.format.number;
    settles_ = number != Number::integer && number == number_of(job.type);
    exponents_ = number == Number::float32    ? 0x7F8000007F800000ull
                 : number == Number::bfloat16 ? 0x7F807F807F807F80ull
                                              : 0x7C007C007C007C00ull;
    units_ = exponents_ & ~(exponents_ << 1);
  }

  // Whether the bytes are the output but for numbers that are not finite.
  bool settles() const { return settles_; }
  void settle(void* numbers, uint32_t bytes) const {
    formats_.settle(job_.format.nonfinite, job_.type, numbers, bytes * 8 / job_.format.bits);
  }
  // The same for a word, with a look at it first: hardly any has a number that is not finite.
  uint64_t settled(uint64_t word) const {
    // In a field whose exponent is all ones, adding one to it carries into the sign's place.
    if (((word & exponents_) + units_) & ~exponents_) settle(&word, 8);
    return word;
  }

  // The numbers of `bytes` bytes of an image from byte `at` on (whole words, but for the tensor's last ones).
  void decode(uint64_t at, const uint8_t* image, uint32_t bytes, uint32_t chip) const {
    const uint64_t row = static_cast<uint64_t>(chip) * job_.numbers;
    if (plain_int8(job_.format) && !job_.centers) {
      return scale(reinterpret_cast<const int8_t*>(image), at, bytes, row);
    }
    const uint32_t per_word = weights_per_word(job_.format);
    const uint32_t step = job_.format.number == Number::integer ? kPieceBytes : bytes;
    for (uint32_t done = 0; done < bytes; done += step) {
      const uint32_t piece = bytes - done < step ? bytes - done : step;
      const uint64_t first = (at + done) / 8 * per_word;
      const uint64_t to_end = job_.numbers - first, held = (piece + 7) / 8 * per_word;
      const uint32_t count = static_cast<uint32_t>(to_end < held ? to_end : held);
      if (job_.format.number == Number::integer) {
        decode_integers(image + done, piece, first, count, row);
      } else {
        decode_floats(image + done, first, count, row);
      }
    }
  }

 private:
  static constexpr uint32_t kPieceBytes = 512;
  static constexpr uint32_t kMostNumbers = kPieceBytes * 4;  // 2 bits each
  static constexpr uint32_t kPieceNumbers = 512;

  void decode_integers(const uint8_t* image, uint32_t bytes, uint64_t first, uint32_t count, uint64_t row) const {
    alignas(64) int8_t q[kMostNumbers + FormatPath::kSlack];
    if (bytes % 8) {  // bytes of 8-bit weights that end inside a word
      uint8_t padded[kPieceBytes] = {};
      for (uint32_t i = 0; i < bytes; ++i) padded[i] = image[i];
      formats_.unpack(job_.format, padded, (bytes + 7) / 8, q);
    } else {
      formats_.unpack(job_.format, image, bytes / 8, q);
    }
    if (!job_.centers) return scale(q, first, count, row);
    each_run(first, count, [&](uint32_t i, uint32_t n, uint64_t channel) {
      const float scale = job_.scales[channel], center = job_.centers[channel];
      to_output(row + first + i, n, [&](uint32_t done, float* values, uint32_t some) {
        formats_.affine(q + i + done, scale, center, values, some);
      });
    });
  }

  // Integers that need no center, without a detour.
  void scale(const int8_t* q, uint64_t first, uint32_t count, uint64_t row) const {
    each_run(first, count, [&](uint32_t i, uint32_t n, uint64_t channel) {
      const float scale = job_.scales[channel];
      if (job_.type == Output::float32) {
        path_.to_float32(q + i, scale, static_cast<float*>(output(row + first + i)), n);
      } else if (job_.type == Output::bfloat16) {
        path_.to_bfloat16(q + i, scale, static_cast<uint16_t*>(output(row + first + i)), n);
      } else {
        path_.to_float16(q + i, scale, static_cast<uint16_t*>(output(row + first + i)), n);
      }
    });
  }

  void decode_floats(const uint8_t* codes, uint64_t first, uint32_t count, uint64_t row) const {
    const Format& format = job_.format;
    each_run(first, count, [&](uint32_t i, uint32_t n, uint64_t channel) {
      const float scale = format.bits == 8 ? job_.scales[channel] : 1.0f;
      const uint32_t limit = limit_of(format, scale, number_of(job_.type));
      to_output(row + first + i, n, [&](uint32_t done, float* values, uint32_t some) {
        formats_.widen(format.number, format.nonfinite, codes + (i + done) * (format.bits / 8), scale, limit, values,
                       some);
      });
    });
  }

  // Calls make(done, values, count) for `count` float32 numbers, which become numbers `number`, ... of the output.
  template <class Make>
  void to_output(uint64_t number, uint32_t count, Make make) const {
    if (job_.type == Output::float32) return make(0, static_cast<float*>(output(number)), count);
    alignas(64) float values[kPieceNumbers];
    for (uint32_t done = 0; done < count; done += kPieceNumbers) {
      const uint32_t some = count - done < kPieceNumbers ? count - done : kPieceNumbers;
      make(done, values, some);
      formats_.narrow(job_.type, values, static_cast<uint16_t*>(output(number + done)), some);
    }
  }

  // Calls visit(i, n, channel) for each run of numbers first + i ... first + i + n - 1 that have one scale.
  template <class Visit>
  void each_run(uint64_t first, uint32_t count, Visit visit) const {
    for (uint32_t i = 0; i < count;) {
      const uint64_t run = (first + i) / job_.scale_run;
      const uint64_t to_run_end = job_.scale_count == 1 ? count - i : (run + 1) * job_.scale_run - (first + i);
      const uint32_t n = static_cast<uint32_t>(to_run_end < count - i ? to_run_end : count - i);
      visit(i, n, run % job_.scale_count);
      i += n;
    }
  }

  void* output(uint64_t number) const {
    return static_cast<uint8_t*>(job_.output) + number * (job_.type == Output::float32 ? 4 : 2);
  }

  const Job& job_;
  const CpuPath& path_;
  const FormatPath& formats_;
  bool settles_;
  uint64_t exponents_, units_;  // of the numbers of a word: exponents of ones, and the lowest bit of each
};

}  // namespace faultsim

// Philox4x32-10: a counter-based random function, one implementation for host and device.
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define FAULTSIM_HD __host__ __device__ __forceinline__
#else
#define FAULTSIM_HD inline
#endif

namespace faultsim {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u;
constexpr uint32_t kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u;  // golden ratio
constexpr uint32_t kPhiloxW1 = 0xBB67AE85u;  // sqrt(3) - 1
constexpr int kPhiloxRounds = 10;

struct Philox4 {
  uint32_t word[4];
};

// A 64-bit product of 32-bit factors. Without the inline assembly CUDA's compiler multiplies the zero upper halves too.
static FAULTSIM_HD uint64_t wide_product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
#else
  return static_cast<uint64_t>(a) * b;
#endif
}

// Internal linkage: this header is compiled for several instruction sets, and the linker must not pick one of those
// versions for all of them.
static FAULTSIM_HD Philox4 philox4x32(uint64_t key, Philox4 counter) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  Philox4 c = counter;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = wide_product(kPhiloxM0, c.word[0]);
    const uint64_t p1 = wide_product(kPhiloxM1, c.word[2]);
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return c;
}

}  // namespace faultsim

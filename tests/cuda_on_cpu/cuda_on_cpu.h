// The words of CUDA that csrc/launch_cuda.cu uses, said in C++: a block is a few threads with real barriers and
// atomics, blocks run one after another. For machines without a GPU: the kernel's own text is compiled with this and
// compared with the oracle. It shows the logic; what only a GPU can show (speed, memory model, launch limits) it
// doesn't.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "half.h"

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __grid_constant__

struct uint4 {
  uint32_t x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct Index {
  uint32_t x;
};
static thread_local Index threadIdx, blockIdx;
static Index gridDim;
static pthread_barrier_t block_barrier;
static int block_or;
static uint4 shared[4096];  // 64 KiB, one block at a time

static void __syncthreads() { pthread_barrier_wait(&block_barrier); }
static int __syncthreads_or(int holds) {
  __syncthreads();
  if (threadIdx.x == 0) block_or = 0;
  __syncthreads();
  if (holds) __atomic_or_fetch(&block_or, 1, __ATOMIC_SEQ_CST);
  __syncthreads();
  const int any = block_or;
  __syncthreads();
  return any;
}
static void atomicOr(uint32_t* p, uint32_t v) { __atomic_or_fetch(p, v, __ATOMIC_SEQ_CST); }
static void atomicAnd(uint32_t* p, uint32_t v) { __atomic_and_fetch(p, v, __ATOMIC_SEQ_CST); }
static void atomicMin(uint32_t* p, uint32_t v) {
  uint32_t old = *p;
  while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
}

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
static float __fmul_rn(float a, float b) { return a * b; }
static __nv_bfloat16 __float2bfloat16_rn(float x) { return {faultsim::bfloat16_bits(x)}; }
static __half __float2half_rn(float x) { return {faultsim::float16_bits(x)}; }

using cudaError_t = int;
using cudaStream_t = void*;
enum { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
static int cudaGetDevice(int* device) { return *device = 0; }
static int cudaSetDevice(int) { return 0; }
static int cudaGetLastError() { return 0; }
static const char* cudaGetErrorString(int) { return "no such output type"; }

template <class Kernel>
static void launch_on_cpu(uint32_t blocks, uint32_t threads, Kernel kernel) {
  gridDim.x = blocks;
  pthread_barrier_init(&block_barrier, nullptr, threads);
  std::vector<std::thread> block;
  for (uint32_t t = 0; t < threads; ++t) {
    block.emplace_back([=] {
      threadIdx.x = t;
      for (uint32_t b = 0; b < blocks; ++b) {
        blockIdx.x = b;
        kernel();
        __syncthreads();
      }
    });
  }
  for (std::thread& thread : block) thread.join();
  pthread_barrier_destroy(&block_barrier);
}

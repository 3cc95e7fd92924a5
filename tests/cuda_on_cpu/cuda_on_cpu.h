// The parts of CUDA that csrc/launch_cuda.cu uses, in C++, for machines without a GPU: the kernel's own text is compiled
// with this and compared with the reference. A thread block has as many threads of execution as on a GPU, each with a
// stack of its own. They take turns at barriers and warp operations, in one order or the reverse from block to block, so
// that what one thread does too early or too late for another always shows; thread blocks run one after another. The
// thread sanitizer sees a race wherever two threads of a block are ordered by their turns alone. What only a GPU can
// show (speed, memory model between thread blocks, launch limits) this does not.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <functional>

#include "half.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#else
static void* __tsan_get_current_fiber() { return nullptr; }
static void* __tsan_create_fiber(unsigned) { return nullptr; }
static void __tsan_switch_to_fiber(void*, unsigned) {}
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
static constexpr unsigned __tsan_switch_to_fiber_no_sync = 1;
#endif

#define __device__
#define __global__
#define __shared__ static  // of the one block that runs
#define __launch_bounds__(threads)
#define __grid_constant__
// Scheduling must not look like work of the threads.
#define SCHEDULER __attribute__((noinline, no_sanitize("thread"))) static

struct uint4 {
  uint32_t x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct dim3 {
  uint32_t x, y;
  dim3(uint32_t x, uint32_t y = 1) : x(x), y(y) {}
};

namespace cuda_on_cpu {

constexpr uint32_t kMost = 1024, kStack = 64 << 10;

struct Barrier {
  uint32_t size, arrived, passed;
};
struct Thread {
  ucontext_t context;
  void* fiber;
  uint32_t index;
  dim3 block{0};
  const Barrier* waits;
  uint32_t until;
  bool done;
};

static Thread threads[kMost], outside, *current;
alignas(64) static char stacks[kMost][kStack];
static uint32_t count;
static Barrier whole, warps[kMost / 32];
static uint32_t slots[kMost];
static bool backwards, stuck;
static dim3 grid{0};
static const std::function<void()>* kernel;
static int left_out = -1;  // the number of a barrier that nobody waits at

SCHEDULER void go_to(Thread* next) {
  Thread* before = current;
  current = next;
  __tsan_switch_to_fiber(next->fiber, __tsan_switch_to_fiber_no_sync);
  swapcontext(&before->context, &next->context);
}

// Runs the next thread that can go on; returns outside once all are done, or all wait for one that will not come.
SCHEDULER void next() {
  for (uint32_t i = 1; i <= count; ++i) {
    Thread* thread = threads + (current->index + (backwards ? count - i : i)) % count;
    if (thread->done || (thread->waits && thread->waits->passed < thread->until)) continue;
    if (thread != current) go_to(thread);
    return;
  }
  for (uint32_t i = 0; i < count; ++i) stuck = stuck || !threads[i].done;
  go_to(&outside);
}

SCHEDULER void wait(Barrier* barrier) {
  current->waits = barrier;
  current->until = barrier->passed + 1;
  if (++barrier->arrived == barrier->size) {
    barrier->arrived = 0;
    ++barrier->passed;
  }
  if (barrier->passed < current->until) next();
  current->waits = nullptr;
}

// Everything done before it happens before everything done after it, in all threads. Barriers alternate between two
// names: a thread that leaves one late must not seem to know what others did on their way to the next.
SCHEDULER void block_barrier() {
  static char names[2];
  char* name = names + whole.passed % 2;
  __tsan_release(name);
  wait(&whole);
  __tsan_acquire(name);
}

SCHEDULER void run() {
  __tsan_acquire(&grid);
  for (uint32_t y = 0; y < grid.y; ++y) {
    for (uint32_t x = 0; x < grid.x; ++x) {
      current->block.x = x, current->block.y = y;
      (*kernel)();
      block_barrier();
      backwards = (x + y) % 2 == 0;
    }
  }
  __tsan_release(&grid);
  current->done = true;
  next();
}

SCHEDULER bool launch(dim3 blocks, uint32_t size, const std::function<void()>& body) {
  grid = blocks, count = size, kernel = &body, stuck = backwards = false;
  whole = {size, 0, 0};
  for (uint32_t w = 0; w < size / 32; ++w) warps[w] = {32, 0, 0};
  __tsan_release(&grid);
  outside.fiber = __tsan_get_current_fiber();
  for (uint32_t t = 0; t < size; ++t) {
    Thread& thread = threads[t];
    if (!thread.fiber) thread.fiber = __tsan_create_fiber(0);
    thread.index = t, thread.waits = nullptr, thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stacks[t];
    thread.context.uc_stack.ss_size = kStack;
    makecontext(&thread.context, run, 0);
  }
  current = &outside;
  go_to(threads);
  __tsan_acquire(&grid);
  return !stuck;
}

SCHEDULER dim3 thread_index() { return {current->index}; }
SCHEDULER dim3 block_index() { return current->block; }

// Every thread of a warp gives a value and then sees the values of all. As on a GPU, this orders no other memory.
SCHEDULER const uint32_t* exchange(uint32_t value) {
  Barrier* warp = warps + current->index / 32;
  wait(warp);  // the slots of the exchange before have been read
  slots[current->index] = value;
  wait(warp);
  return slots + current->index / 32 * 32;
}

SCHEDULER uint32_t shuffle(uint32_t value, uint32_t lane) { return exchange(value)[lane]; }
SCHEDULER uint32_t ballot(bool holds) {
  const uint32_t* all = exchange(holds);
  uint32_t bits = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) bits |= all[lane] << lane;
  return bits;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread_index()
#define blockIdx cuda_on_cpu::block_index()

// `number` identifies a barrier of the kernel's text.
static void __syncthreads(int number) {
  if (number != cuda_on_cpu::left_out) cuda_on_cpu::block_barrier();
}
static uint32_t __shfl_sync(uint32_t, uint32_t value, uint32_t lane) { return cuda_on_cpu::shuffle(value, lane); }
static uint32_t __ballot_sync(uint32_t, bool holds) { return cuda_on_cpu::ballot(holds); }
static uint32_t __popc(uint32_t x) { return __builtin_popcount(x); }
static uint32_t __popcll(uint64_t x) { return __builtin_popcountll(x); }
static uint32_t __ffs(uint32_t x) { return __builtin_ffs(x); }
static uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

// Relaxed, as on a GPU: they order nothing but themselves.
static void atomicOr(uint32_t* p, uint32_t v) { __atomic_or_fetch(p, v, __ATOMIC_RELAXED); }
static void atomicAnd(uint32_t* p, uint32_t v) { __atomic_and_fetch(p, v, __ATOMIC_RELAXED); }
static void atomicMin(uint32_t* p, uint32_t v) {
  uint32_t old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
// A GPU makes a NaN of its own of any NaN.
static __nv_bfloat16 __float2bfloat16_rn(float x) { return {x == x ? faultsim::bfloat16_bits(x) : uint16_t{0x7FFF}}; }
static __half __float2half_rn(float x) { return {x == x ? faultsim::float16_bits(x) : uint16_t{0x7FFF}}; }
static uint32_t __float_as_uint(float x) { return faultsim::bits_of(x); }
static uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
static uint16_t __half_as_ushort(__half x) { return x.bits; }

using cudaError_t = int;
using cudaStream_t = void*;
enum { cudaSuccess, cudaErrorInvalidValue, cudaErrorLaunchFailure };
enum { cudaDevAttrMultiProcessorCount };
static int last_error;
static int cudaGetDevice(int* device) { return *device = 0; }
static int cudaSetDevice(int) { return cudaSuccess; }
static int cudaGetLastError() { return last_error; }
static const char* cudaGetErrorName(int error) { return error == cudaErrorInvalidValue ? "invalid" : "failed"; }
static const char* cudaGetErrorString(int) { return "no such output, or not all threads reach a barrier"; }
// Device n has n + 1 processors.
static int cudaDeviceGetAttribute(int* value, int, int device) {
  *value = device + 1;
  return cudaSuccess;
}

static void launch_on_cpu(dim3 blocks, uint32_t threads, const std::function<void()>& kernel) {
  last_error = cuda_on_cpu::launch(blocks, threads, kernel) ? cudaSuccess : cudaErrorLaunchFailure;
}

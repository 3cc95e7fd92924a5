// The CPU launcher: loops over arrays, threads and chips.
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu_path.h"
#include "launch.h"

namespace faultsim {
namespace {

const CpuPath* const* paths(int* count) {
  static const CpuPath* available[3];
  static const int found = [] {
    int n = 0;
#if defined(FAULTSIM_X86)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
      available[n++] = &avx512::path;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
      available[n++] = &avx2::path;
#endif
    available[n++] = &portable::path;
    return n;
  }();
  *count = found;
  return available;
}

const CpuPath& path_named(const char* name) {
  int count;
  const CpuPath* const* all = paths(&count);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(all[i]->name, name) == 0) return *all[i];
  }
  return *all[count - 1];
}

constexpr uint32_t kChipsAtOnce = 5;                // faults of five chips, 41 KiB, stay in the cache of a core
constexpr uint64_t kWeightsPerThread = 256u << 10;  // below this another thread costs more than it gives

// Outputs that no cache holds bypass it. Below that, the next reader is glad to find them there.
uint64_t stream_from() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (bytes > 0) return static_cast<uint64_t>(bytes) / 4 * 3;
#endif
  return 32u << 20;
}

// What one thread needs; under 64 KiB.
struct Room {
  ArrayFaults faults[kChipsAtOnce];
  alignas(64) uint8_t set[kArrayBytes + 16];  // spread over the weights where repeat > 1
  alignas(64) uint8_t clear[kArrayBytes + 16];
  alignas(64) int8_t weights[kArrayBytes];
};
static_assert(sizeof(Room) + 8 * 1024 <= 64 * 1024,
              "the promised extra memory of a thread, with the buffers of draw()");

class Run {
 public:
  Run(const Job& job, const CpuPath& path)
      : job_(job),
        path_(path),
        span_(tile_weights(job.placement)),
        first_tile_(job.placement.base / span_),
        tiles_((job.placement.base + job.weights - 1) / span_ - first_tile_ + 1),
        stream_(job.type == Output::int8 && job.weights * job.chips >= stream_from()) {
    const uint64_t arrays = job.placement.arrays;
    units_ = arrays && arrays < tiles_ ? arrays : tiles_;
  }

  uint64_t units() const { return units_; }

  // Unit u: the tiles first + u, first + u + units, ... all lie in the same array, which is drawn once.
  void unit(uint64_t u, Room* room) const {
    const uint32_t offset = job_.array_offset ? static_cast<uint32_t>(*job_.array_offset) : 0;
    const uint32_t access = job_.access ? static_cast<uint32_t>(*job_.access) : 0;
    const uint32_t array = static_cast<uint32_t>(array_of_tile(job_.placement, first_tile_ + u)) + offset;
    for (uint32_t chip = 0; chip < job_.chips; chip += kChipsAtOnce) {
      const uint32_t chips = job_.chips - chip < kChipsAtOnce ? job_.chips - chip : kChipsAtOnce;
      for (uint32_t c = 0; c < chips; ++c) {
        path_.draw(static_cast<uint64_t>(job_.seeds[chip + c]), array, access, job_.table, job_.rule, &room->faults[c]);
      }
      for (uint64_t t = u; t < tiles_; t += units_) tile(first_tile_ + t, chip, chips, room);
    }
  }

 private:
  void tile(uint64_t tile, uint32_t chip, uint32_t chips, Room* room) const {
    const uint64_t base = job_.placement.base;
    const uint64_t begin = tile * span_ > base ? tile * span_ : base;
    const uint64_t end = (tile + 1) * span_ < base + job_.weights ? (tile + 1) * span_ : base + job_.weights;
    for (uint64_t at = begin; at < end;) {
      const uint64_t in_tile = at - tile * span_;
      // Pieces begin at multiples of 4,096 weights in the tile, so that a repeated word is never cut.
      const uint64_t room_left = kArrayBytes - in_tile % kArrayBytes;
      const uint32_t count = static_cast<uint32_t>(end - at < room_left ? end - at : room_left);
      for (uint32_t c = 0; c < chips; ++c) {
        piece(at - base, static_cast<uint32_t>(in_tile), count, chip + c, room->faults[c], room);
      }
      at += count;
    }
  }

  const uint8_t* mask_at(const uint64_t* faults, uint32_t in_tile, uint32_t count, uint8_t* spread) const {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(faults);
    const Placement& p = job_.placement;
    if (p.repeat == 1) return bytes + in_tile;
    // In steps of 16 bytes, which a repeated word is a multiple of: a piece begins where such a step does, and what is
    // written beyond its end stays inside the room of one array.
    const uint32_t lead = in_tile % 16, at = in_tile - lead, span = p.word * p.repeat;
    uint32_t in_word = at % p.word, left = span - at % span;
    bytes += at / span * p.word;
    for (uint32_t i = 0; i < lead + count; i += 16) {
      std::memcpy(spread + i, bytes + in_word, 16);
      in_word = in_word + 16 == p.word ? 0 : in_word + 16;
      left -= 16;
      if (left == 0) {
        bytes += p.word;
        left = span;
      }
    }
    return spread + lead;
  }

  void piece(uint64_t weight, uint32_t in_tile, uint32_t count, uint32_t chip, const ArrayFaults& faults,
             Room* room) const {
    const uint64_t out = static_cast<uint64_t>(chip) * job_.weights + weight;
    const bool stuck = job_.rule.kind == Kind::stuck;
    const bool mask = job_.type == Output::mask;
    const int8_t* source = job_.source + weight;
    int8_t* result = job_.type == Output::int8 ? static_cast<int8_t*>(job_.output) + out : room->weights;
    if (faults.touched <= ArrayFaults::kFew && source != result && !stream_ && !mask) {
      std::memcpy(result, source, count);
      for (uint32_t i = 0; i < faults.touched; ++i) repair(faults, faults.word[i], in_tile, count, source, result);
      if (job_.type != Output::int8) dequantise(weight, count, result, out);
      return;
    }
    const uint8_t* set = mask_at(faults.set, in_tile, count, room->set);
    const uint8_t* clear = stuck || mask ? mask_at(faults.clear, in_tile, count, room->clear) : nullptr;
    if (mask) {
      const bool flip = job_.rule.kind == Kind::flip;
      std::memcpy(static_cast<uint8_t*>(job_.output) + out, flip ? set : clear, count);
      if (flip) {
        std::memset(job_.states + out, 0, count);
      } else {
        std::memcpy(job_.states + out, set, count);
      }
      return;
    }
    if (stuck) {
      path_.stick(source, set, clear, result, count, stream_);
    } else {
      path_.flip(source, set, result, count, stream_);
    }
    if (job_.type != Output::int8) dequantise(weight, count, result, out);
  }

  // The weights of a piece that lie in one 64-bit word of memory.
  void repair(const ArrayFaults& faults, uint32_t word, uint32_t in_tile, uint32_t count, const int8_t* source,
              int8_t* result) const {
    const Placement& p = job_.placement;
    const uint64_t set = faults.set[word], clear = job_.rule.kind == Kind::stuck ? faults.clear[word] : 0;
    const int64_t byte = static_cast<int64_t>(word) * 8;
    if (p.repeat == 1) return repair_at(byte - in_tile, set, clear, count, source, result);
    const int64_t first = byte / p.word * p.word * p.repeat + byte % p.word - in_tile;
    if (first >= count) return;
    for (uint32_t r = 0; r < p.repeat; ++r) {
      repair_at(first + static_cast<int64_t>(r) * p.word, set, clear, count, source, result);
    }
  }

  static void repair_at(int64_t at, uint64_t set, uint64_t clear, uint32_t count, const int8_t* source,
                        int8_t* result) {
    if (at <= -8 || at >= count) return;
    if (at >= 0 && at + 8 <= count) {
      uint64_t stored;
      std::memcpy(&stored, source + at, 8);
      stored = (stored & ~clear) ^ set;
      std::memcpy(result + at, &stored, 8);
      return;
    }
    for (int64_t byte = 0; byte < 8; ++byte) {
      if (at + byte < 0 || at + byte >= count) continue;
      const uint64_t stored = static_cast<uint8_t>(source[at + byte]);
      result[at + byte] = static_cast<int8_t>((stored & ~(clear >> 8 * byte)) ^ (set >> 8 * byte));
    }
  }

  void dequantise(uint64_t weight, uint32_t count, const int8_t* values, uint64_t out) const {
    for (uint32_t i = 0; i < count;) {
      const uint64_t run = (weight + i) / job_.scale_run;
      const uint64_t left = job_.scale_count == 1 ? count - i : (run + 1) * job_.scale_run - (weight + i);
      const uint32_t n = static_cast<uint32_t>(left < count - i ? left : count - i);
      const float scale = job_.scales[run % job_.scale_count];
      if (job_.type == Output::float32) {
        path_.to_float32(values + i, scale, static_cast<float*>(job_.output) + out + i, n);
      } else if (job_.type == Output::bfloat16) {
        path_.to_bfloat16(values + i, scale, static_cast<uint16_t*>(job_.output) + out + i, n);
      } else {
        path_.to_float16(values + i, scale, static_cast<uint16_t*>(job_.output) + out + i, n);
      }
      i += n;
    }
  }

  const Job& job_;
  const CpuPath& path_;
  const uint64_t span_, first_tile_, tiles_;
  const bool stream_;
  uint64_t units_;
};

}  // namespace

const char* const* cpu_paths(int* count) {
  static const char* names[3];
  const CpuPath* const* all = paths(count);
  for (int i = 0; i < *count; ++i) names[i] = all[i]->name;
  return names;
}

void launch_cpu(const Job& job, int threads, const char* path) {
  if (job.weights == 0 || job.chips == 0) return;
  const Run run(job, path_named(path));
  const uint64_t worth = job.weights * job.chips / kWeightsPerThread + 1;
  uint64_t workers = static_cast<uint64_t>(threads < 1 ? 1 : threads);
  workers = workers < worth ? workers : worth;
  workers = workers < run.units() ? workers : run.units();

  std::atomic<uint64_t> next{0};
  const auto work = [&] {
    Room room;
    for (uint64_t u = next++; u < run.units(); u = next++) run.unit(u, &room);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // streaming stores are weakly ordered
  };
  std::vector<std::thread> pool;
  for (uint64_t i = 1; i < workers; ++i) {
    try {
      pool.emplace_back(work);
    } catch (...) {
      break;  // no more threads to be had: those that run take all the units
    }
  }
  work();
  for (std::thread& worker : pool) worker.join();
}

}  // namespace faultsim

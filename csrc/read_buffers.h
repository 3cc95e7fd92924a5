// What the CPU launcher keeps at hand: the buffers of a thread.
#pragma once

#include <cstdint>

#include "cpu_path.h"

namespace faultsim {
namespace {

constexpr uint32_t kChipsAtOnce = 3;  // masks of three chips, 25 KiB, stay in the cache of a core

// A block of bytes that lies as some other address lies in its page of 4 KiB. Where a load and a store before it are
// less than 512 bytes apart but for whole pages, processors may take one for the other; then loops are up to ten times
// as slow.
class PlacedBlock {
 public:
  uint8_t* beside(const void* address) {
    const uintptr_t distance = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(room_);
    return room_ + distance % kPage / 64 * 64;
  }

 private:
  static constexpr uint32_t kPage = 4096;
  alignas(64) uint8_t room_[kPage + kBlockBytes] = {};
};

// The buffers of one thread; under 64 KiB.
struct Scratch {
  BlockFaults faults[kChipsAtOnce];
  DrawnHits hits, hits_before;
  PlacedBlock mask;  // all 0 between two reads
  PlacedBlock weights;
};
static_assert(sizeof(Scratch) + 14 * 1024 <= 64 * 1024,
              "the promised extra memory of a thread, with the buffers of a path's functions");

}  // namespace
}  // namespace faultsim

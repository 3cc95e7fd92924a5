// Work on several threads of the CPU.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace faultsim {

// Calls work() on up to `workers` threads, of which this is one, and waits for all.
template <class Work>
void run_on_threads(uint64_t workers, const Work& work) {
  std::vector<std::thread> pool;
  for (uint64_t i = 1; i < workers; ++i) {
    try {
      pool.emplace_back(work);
    } catch (...) {
      break;  // the system has no more threads: those that run do all the work
    }
  }
  work();
  for (std::thread& worker : pool) worker.join();
}

}  // namespace faultsim

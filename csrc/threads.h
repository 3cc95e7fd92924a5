// Work on several threads of the CPU.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif
#include <thread>
#include <vector>

namespace faultsim {

#if defined(_OPENMP)
inline const pid_t kLoadedIn = getpid();
#endif

// Units of work in runs of successive ones, which threads take in turn. Runs are long, since threads that read next to
// each other fetch each other's memory, and there are so many that all threads end at about the same time.
class Runs {
 public:
  Runs(uint64_t units, uint64_t workers) : units_(units), run_(units / (kRunsOfWorker * workers) + 1) {}

  // Calls visit(unit) for the units that are left for this thread.
  template <class Visit>
  void take(Visit visit) {
    for (uint64_t first = next_.fetch_add(run_); first < units_; first = next_.fetch_add(run_)) {
      const uint64_t end = first + run_ < units_ ? first + run_ : units_;
      for (uint64_t unit = first; unit < end; ++unit) visit(unit);
    }
  }

 private:
  static constexpr uint64_t kRunsOfWorker = 16;

  const uint64_t units_, run_;
  std::atomic<uint64_t> next_{0};
};

// Calls work() on up to `workers` threads, of which this is one, and waits for all. `team`: how many torch uses.
//
// torch's threads are OpenMP's, which wait for their next loop for some milliseconds before they sleep. Threads of our
// own would share cores with them, and have to be started for each call. The team is always as large as torch's:
// OpenMP ends threads that a smaller one leaves over.
template <class Work>
void run_on_threads(uint64_t workers, int team, const Work& work) {
  if (workers <= 1) return work();
#if defined(_OPENMP)
  if (getpid() == kLoadedIn) {  // a fork has none of OpenMP's threads, and OpenMP would wait for them
#pragma omp parallel num_threads(team)
    if (static_cast<uint64_t>(omp_get_thread_num()) < workers) work();
    return;
  }
#endif
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

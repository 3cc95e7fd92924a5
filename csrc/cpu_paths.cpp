// Which vector paths this processor can run.
#include <cstring>

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

}  // namespace

const CpuPath& path_named(const char* name) {
  int count;
  const CpuPath* const* all = paths(&count);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(all[i]->name, name) == 0) return *all[i];
  }
  return *all[count - 1];
}

const char* const* cpu_paths(int* count) {
  static const char* names[3];
  const CpuPath* const* all = paths(count);
  for (int i = 0; i < *count; ++i) names[i] = all[i]->name;
  return names;
}

}  // namespace faultsim

// Replaces launch_cuda.cu in builds without CUDA.
#include "launch.h"

namespace faultsim {

bool built_with_cuda() { return false; }

std::string launch_cuda(const Job&, int, void*) {
  return "this build of faultsim has no CUDA kernels: install it again where nvcc is on the PATH, "
         "or with FAULTSIM_CUDA=ON to see why nvcc is not found";
}

}  // namespace faultsim

// Replaces launch_cuda.cu in builds without CUDA.
#include "codec.h"
#include "launch.h"

namespace faultsim {
namespace {

const char* const kMissing =
    "this build of faultsim has no CUDA kernels: install it again where nvcc is on the PATH, "
    "or with FAULTSIM_CUDA=ON to see why nvcc is not found";

}  // namespace

bool built_with_cuda() { return false; }

std::string launch_cuda(const Job&, int, void*) { return kMissing; }
std::string launch_protected_cuda(const ProtectedJob&, int, void*) { return kMissing; }
std::string launch_decode_cuda(const DecodeJob&, int, void*) { return kMissing; }

}  // namespace faultsim

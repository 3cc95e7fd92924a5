# Sets `result` to what the CUDA kernels are compiled for where the user does not say (CUDAARCHS or
# CMAKE_CUDA_ARCHITECTURES): machine code for the cards of this machine. Without a card it is PTX for Turing, the oldest
# generation, which each newer card compiles when it first loads the kernels. Each generation takes a minute, so packages
# for many cards name theirs: CUDAARCHS="75-real;80-real;90".
function(faultsim_cuda_architectures result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE said
                  RESULT_VARIABLE status ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(found "")
  if(status STREQUAL "0")
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" capabilities "${said}")
    foreach(capability IN LISTS capabilities)
      string(REPLACE "." "" number "${capability}")
      list(APPEND found "${number}-real")
    endforeach()
    list(REMOVE_DUPLICATES found)
  endif()
  if(NOT found)
    set(found 75-virtual)
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

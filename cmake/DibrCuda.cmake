# The device backend of libdibr: plugins/cuda, built by nvcc or, for tests, by the host compiler (tests/cuda_on_host).

# Real code for each architecture, and PTX of the last for those to come.
set(DIBR_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120
    CACHE STRING "GPU architectures to compile the CUDA kernels for, in CMake's notation")

if(DIBR_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "DIBR_CUDA=ON needs nvcc (CUDA 12.8 or newer): put it on PATH, set CMAKE_CUDA_COMPILER, or "
                        "configure with DIBR_CUDA=OFF")
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER_ID STREQUAL NVIDIA OR CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
    message(FATAL_ERROR "DIBR_CUDA=ON needs nvcc (CUDA 12.8 or newer), got ${CMAKE_CUDA_COMPILER}, "
                        "${CMAKE_CUDA_COMPILER_ID} ${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${DIBR_CUDA_ARCHITECTURES})  # after the check: an older nvcc refuses the newest
elseif(DIBR_CUDA_ON_HOST)
  find_package(Threads REQUIRED)
endif()

# The runtime is linked in statically and hidden, so that the library loads where there is neither driver nor toolkit.
# The compiler's own contraction is off here too: what decides coverage and depth must round as it does on the CPU.
function(dibr_add_cuda_backend target)
  if(NOT DIBR_CUDA AND NOT DIBR_CUDA_ON_HOST)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS cuda/*.cu)
  target_sources(${target} PRIVATE ${sources})
  target_compile_definitions(${target} PRIVATE DIBR_WITH_CUDA=1)
  if(DIBR_CUDA_ON_HOST)
    set_source_files_properties(${sources} PROPERTIES
      LANGUAGE CXX COMPILE_OPTIONS "-xc++" COMPILE_DEFINITIONS DIBR_CUDA_ON_HOST=1)
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests/cuda_on_host")
    target_link_libraries(${target} PRIVATE Threads::Threads)
    if(DIBR_CUDA_ON_HOST_THREADS)
      target_compile_definitions(${target} PRIVATE CUDA_ON_HOST_MT)
    endif()
    return()
  endif()
  set_target_properties(${target} PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
    CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
  set(warnings -Wall,-Wextra$<$<BOOL:${DIBR_WERROR}>:,-Werror>)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -fmad=false "-Xcompiler=${warnings},-ffp-contract=off" $<$<BOOL:${DIBR_WERROR}>:-Werror=all-warnings>>)
endfunction()

# How every native library of this project is compiled and installed.

# Folder of the libraries inside the wheel and inside an installed prefix.
set(DIBR_INSTALL_LIBDIR lib CACHE STRING "Where the libraries go, relative to the install prefix")
set(DIBR_INSTALL_INCLUDEDIR include CACHE STRING "Where dibr/dibr.h goes, relative to the install prefix")

# Flags of one target. No compiler contracts to fused multiply-add by itself, since that would change which face covers
# a pixel from one machine or compiler to the next; what may be fused says so (core/platform.h).
function(dibr_target_flags target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  set(flags
    -Wall -Wextra $<$<BOOL:${DIBR_WERROR}>:-Werror>
    -ffp-contract=off -fno-trapping-math -fno-math-errno
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
  # nvcc takes other flags: dibr_add_cuda_backend.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C,CXX>:${flags}>")
  if(DIBR_SANITIZE)
    list(JOIN DIBR_SANITIZE "," sanitizers)
    # A C caller may hand over any integer as an enumerator, and to refuse it is to load it: hence no check of that.
    set(sanitize -fsanitize=${sanitizers} -fno-sanitize=enum -fno-sanitize-recover=all -fno-omit-frame-pointer)
    if("undefined" IN_LIST DIBR_SANITIZE)
      list(APPEND sanitize -fsanitize=float-cast-overflow)  # which "undefined" does not include
    endif()
    # Line tables are what a report needs, and checks that are called instead of inlined are the same checks: together
    # with -O1 that spares most of the compiler's time.
    set(cheaper -O1 -g1)
    if("address" IN_LIST DIBR_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      list(APPEND cheaper --param=asan-instrumentation-with-call-threshold=0)
    endif()
    target_compile_options(${target} PRIVATE ${sanitize} ${cheaper})
    target_link_options(${target} PRIVATE ${sanitize})
  endif()
endfunction()

# Puts first what takes longest to compile, so that it is not what a whole build waits for at its end.
function(dibr_longest_first list_of_sources)
  set(longest ${${list_of_sources}})
  set(others ${longest})
  list(FILTER longest INCLUDE REGEX "/(texture|render)\\.cpp$")
  list(FILTER others EXCLUDE REGEX "/(texture|render)\\.cpp$")
  list(REVERSE longest)
  set(${list_of_sources} ${longest} ${others} PARENT_SCOPE)
endfunction()

# A shared library that exports what its map names and finds its siblings in its own folder.
function(dibr_add_library target export_map)
  set(sources ${ARGN})
  dibr_longest_first(sources)
  add_library(${target} SHARED ${sources})
  dibr_target_flags(${target})
  set_target_properties(${target} PROPERTIES
    C_VISIBILITY_PRESET hidden
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    BUILD_RPATH_USE_ORIGIN ON
    INSTALL_RPATH "$ORIGIN"
    LINK_DEPENDS "${export_map}")
  target_link_options(${target} PRIVATE "-Wl,--version-script=${export_map}" -Wl,--exclude-libs,ALL)
endfunction()

set(DIBR_CPU_FLAGS_avx2 -mavx2 -mfma)
set(DIBR_CPU_FLAGS_avx512 -mfma -mavx512f -mavx512vl -mavx512dq -mavx512bw -mprefer-vector-width=512)

# Adds the CPU backend for one more instruction set, in the namespace dibr::cpu::<level>. Levels are added in rising
# order and as archives, which the linker reads after the target's own objects: of an inline function that several of
# them have out of line it keeps the first, and that is one which every machine can run.
function(dibr_add_cpu_level target level)
  set(archive ${target}_cpu_${level})
  set(sources ${ARGN})
  dibr_longest_first(sources)
  add_library(${archive} STATIC ${sources})
  dibr_target_flags(${archive})
  set_target_properties(${archive} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${archive} PRIVATE ${DIBR_CPU_FLAGS_${level}})
  target_compile_definitions(${archive} PRIVATE DIBR_CPU_LEVEL=${level})
  target_include_directories(${archive} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  target_link_libraries(${target} PRIVATE ${archive})
  set_property(TARGET ${target} APPEND PROPERTY DIBR_CPU_ARCHIVES ${archive})
endfunction()

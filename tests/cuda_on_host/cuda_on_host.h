// Runs plain CUDA C++ kernels on the CPU, for tests. Kernel sources reach it through plugins/cuda/compat.h; README.md
// says how to build and what the environment variables do.
//
// A worker runs blocks one after another. The threads of a block are fibres, which switch only at barriers and warp
// operations, so between two of those a thread runs alone, and the order in which threads and blocks run can be chosen:
// a result that changes with the order is a race.
//
// CUDA_ON_HOST_MT builds with several workers (one OS thread each); without it launches run on the caller's thread.
#pragma once

#include "shim/qualifiers.h"
// Types before the functions that use them.
#include "shim/half.h"
#include "shim/vector_types.h"
// The machinery.
#include "shim/context.h"
#include "shim/counters.h"
#include "shim/launch.h"
#include "shim/order.h"
#include "shim/shared_memory.h"
#include "shim/worker.h"
// What kernels and launchers call.
#include "shim/device_functions.h"
#include "shim/runtime_api.h"

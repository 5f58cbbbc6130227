// A stack to run on and the switch between two of them, with the notes that the sanitizers need.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "qualifiers.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define CUDA_ON_HOST_TSAN(...) __VA_ARGS__
#else
#define CUDA_ON_HOST_TSAN(...)
#endif

#if !defined(__x86_64__) && !defined(CUDA_ON_HOST_UCONTEXT)
#define CUDA_ON_HOST_UCONTEXT  // portable, but each switch costs two system calls
#endif
#if defined(CUDA_ON_HOST_UCONTEXT)
#include <ucontext.h>
#endif

namespace cuda_on_host {

#if !defined(CUDA_ON_HOST_UCONTEXT)
// Pushes the callee-saved registers, stores the stack pointer in *saved, continues on `next`. The floating-point
// control words stay as they are: kernels do not change them.
extern "C" __attribute__((visibility("hidden"))) void cuda_on_host_switch_stack(void** saved, void* next);
asm(R"(.pushsection .text
.weak cuda_on_host_switch_stack
.hidden cuda_on_host_switch_stack
.type cuda_on_host_switch_stack, @function
cuda_on_host_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.popsection)");
#endif

// A place where execution can stand: the worker's own stack, or a fibre's.
struct Context {
#if defined(CUDA_ON_HOST_UCONTEXT)
  ucontext_t machine = {};
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack_bottom =
      nullptr;  // of the worker's own stack only AddressSanitizer knows, and tells at each switch
  size_t stack_size = 0;
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

// First thing that runs on a fresh fibre: `from` is whoever switched to it.
CUDA_ON_HOST_UNSANITIZED inline void arrive_on_new_stack([[maybe_unused]] Context& from) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_bottom, &from.stack_size);
#endif
}

// Leaves `from` for `to`; returns when somebody switches back, who must be `to`.
CUDA_ON_HOST_UNSANITIZED inline void switch_context(Context& from, Context& to) {
  // Flag 1: no happens-before edge. Only barriers order threads, see worker.h.
  CUDA_ON_HOST_TSAN(__tsan_switch_to_fiber(to.tsan_fiber, 1);)
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.asan_fake_stack, to.stack_bottom, to.stack_size);
#endif
#if defined(CUDA_ON_HOST_UCONTEXT)
  swapcontext(&from.machine, &to.machine);
#else
  cuda_on_host_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, &to.stack_bottom, &to.stack_size);
#endif
}

// A context with a stack of its own, below which a guard page turns an overflow into a fault.
class Fibre {
 public:
  explicit Fibre(void (*entry)()) {
    mapping_ = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED || mprotect(mapping_, kGuardBytes, PROT_NONE) != 0) {
      std::perror("cuda_on_host: no memory for a fibre's stack");
      std::abort();
    }
    char* const bottom = static_cast<char*>(mapping_) + kGuardBytes;
    context.stack_bottom = bottom;
    context.stack_size = kStackBytes;
#if defined(CUDA_ON_HOST_UCONTEXT)
    getcontext(&context.machine);
    context.machine.uc_stack.ss_sp = bottom;
    context.machine.uc_stack.ss_size = kStackBytes;
    makecontext(&context.machine, entry, 0);
#else
    // What cuda_on_host_switch_stack pops: six registers, the entry as return address, and a null return address above
    // it, so that the entry finds the stack aligned as after a call. The mapping is zero already.
    void** const top = reinterpret_cast<void**>(bottom + kStackBytes);
    top[-2] = reinterpret_cast<void*>(entry);
    context.stack_pointer = top - 8;
#endif
    CUDA_ON_HOST_TSAN(context.tsan_fiber = __tsan_create_fiber(0);)
  }
  ~Fibre() {
    CUDA_ON_HOST_TSAN(__tsan_destroy_fiber(context.tsan_fiber);)
    munmap(mapping_, kGuardBytes + kStackBytes);
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  Context context;

 private:
  static constexpr size_t kStackBytes = 256 << 10;
  static constexpr size_t kGuardBytes = 4096;
  void* mapping_ = nullptr;
};

}  // namespace cuda_on_host

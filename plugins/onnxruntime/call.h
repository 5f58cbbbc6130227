// One run of a node: its tensors, checked against the shapes the op declares, and the launch of a libdibr op on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "dibr/dibr.h"
#include "onnxruntime/api.h"

namespace dibr::onnxruntime {

struct Dtypes;
struct OpDefinition;

// A size that several arguments share, named as in the op's documentation. The first argument that has it sets it.
struct Size {
  const char* name;
  int64_t value = -1;
};

// What one dimension of an argument must be: a number, or a size that other arguments share.
struct Extent {
  Extent(int64_t number) : number(number) {}
  Extent(Size& size) : size(&size) {}

  int64_t number = 0;
  Size* size = nullptr;
  Size* one_or = nullptr;
};

// A dimension that is 1 or equals a size which an earlier argument has set; actual receives which.
inline Extent one_or(Size& other, Size& actual) {
  Extent extent(actual);
  extent.one_or = &other;
  return extent;
}

// Whether the ops of a device take their tensors from the GPU. For tests the CUDA kernels can be built to run on the
// CPU; their ops then belong to the CPU's execution provider.
inline bool in_gpu_memory(dibr_device device) {
#if DIBR_CUDA_ON_HOST
  (void)device;
  return false;
#else
  return device == DIBR_CUDA;
#endif
}

// Memory of the session's own allocator, held for one launch.
class Workspace {
 public:
  Workspace(const OrtKernelContext* context, const char* memory_name, int device_id, uint64_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  OrtAllocator* allocator_ = nullptr;
  void* data_ = nullptr;
  uint64_t bytes_;
};

class Call {
 public:
  Call(const OpDefinition& definition, const Dtypes& dtypes, dibr_device device, OrtKernelContext* context);

  dibr_dtype dtype() const { return dtype_; }              // of arguments of type kStored
  dibr_dtype texel_dtype() const { return texel_dtype_; }  // and kTexel
  dibr_dtype real_dtype() const { return dtype_ == DIBR_FLOAT64 ? DIBR_FLOAT64 : DIBR_FLOAT32; }

  bool has_input(size_t index) const { return find_input(index) != nullptr; }

  // Data of an input after its shape has been matched; sets the sizes that are not set yet.
  template <class T = void>
  const T* input(size_t index, std::initializer_list<Extent> extents) const {
    return static_cast<const T*>(match(index, extents));
  }
  // The same for an optional input: NULL where it is absent.
  template <class T = void>
  const T* optional_input(size_t index, std::initializer_list<Extent> extents) const {
    return has_input(index) ? input<T>(index, extents) : nullptr;
  }

  // Data of an output of this shape; NULL for an optional output that the node does not have.
  template <class T = void>
  T* output(size_t index, const std::vector<int64_t>& shape) const {
    return static_cast<T*>(allocate_output(index, shape));
  }

  // The workspace of a libdibr op. This checks every size in params, so it comes before the outputs are allocated.
  template <class Params>
  Workspace workspace(const Params& params, dibr_status (*size)(const Params*, dibr_device, uint64_t*)) const {
    uint64_t bytes = 0;
    check(size(&params, device_, &bytes));
    return allocate_workspace(bytes);
  }

  template <class Params>
  void run(dibr_status (*op)(const Params*, const dibr_launch*), const Params& params,
           const Workspace& workspace) const {
    const dibr_launch launch = make_launch(workspace);
    check(op(&params, &launch));
  }

 private:
  const OrtValue* find_input(size_t index) const;
  const void* match(size_t index, std::initializer_list<Extent> extents) const;
  void* allocate_output(size_t index, const std::vector<int64_t>& shape) const;
  Workspace allocate_workspace(uint64_t bytes) const;
  dibr_launch make_launch(const Workspace& workspace) const;
  void check(dibr_status status) const;

  const OpDefinition& definition_;
  dibr_dtype dtype_, texel_dtype_;
  dibr_device device_;
  OrtKernelContext* context_;
};

}  // namespace dibr::onnxruntime

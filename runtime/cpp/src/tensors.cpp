#include "tensors.h"

#include <limits>
#include <map>

#include "backend.h"
#include "failure.h"

namespace dibr::runtime {
namespace {

std::string names_of(const std::vector<TensorSpec>& specs) {
  std::string names;
  for (const TensorSpec& spec : specs) names += (names.empty() ? "" : ", ") + spec.name;
  return names;
}

// Fails unless the tensor fits; sizes collects what names in shapes stand for.
void check(const TensorSpec& spec, const dibr_tensor& tensor, std::map<std::string, std::int64_t>& sizes) {
  const std::string what = "input " + spec.name;
  const ElementType* type = element_type(tensor.element);
  if (type != spec.type) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " must be ", spec.type->name, ", got ",
         type != nullptr ? type->name : sentence("element type ", static_cast<int>(tensor.element)));
  }
  if (tensor.rank < 0 || (tensor.rank > 0 && tensor.shape == nullptr)) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " has rank ", tensor.rank, " and ",
         tensor.shape != nullptr ? "a shape" : "no shape");
  }
  const auto rank = static_cast<std::size_t>(tensor.rank);
  bool fits = rank == spec.shape.size();
  for (std::size_t axis = 0; fits && axis < rank; ++axis) {
    const std::int64_t size = tensor.shape[axis];
    std::int64_t expected = spec.shape[axis];
    if (expected < 0) expected = sizes.emplace(spec.axes[axis], size).first->second;
    fits = size >= 0 && size == expected;
  }
  if (!fits) {
    std::string known;
    for (const std::string& axis : spec.axes) {
      const auto size = sizes.find(axis);
      if (!axis.empty() && size != sizes.end() && size->second >= 0) {
        known += sentence(known.empty() ? " with " : ", ", axis, " = ", size->second);
      }
    }
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " must have shape ", described(spec), known, ", got ",
         described(tensor.shape, rank));
  }
  const std::size_t bytes = tensor_bytes(what, *type, tensor.shape, rank);
  if (tensor.bytes != bytes) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " of shape ", described(tensor.shape, rank), " must have ", bytes,
         " bytes, got ", tensor.bytes);
  }
  if (bytes > 0 && tensor.data == nullptr) fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " has no data: it is NULL");
}

}  // namespace

std::string described(const std::int64_t* shape, std::size_t rank) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < rank; ++axis) text += sentence(axis > 0 ? ", " : "", shape[axis]);
  return text + "]";
}

std::string described(const TensorSpec& spec) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < spec.shape.size(); ++axis) {
    const std::string size = spec.shape[axis] < 0 ? spec.axes[axis] : std::to_string(spec.shape[axis]);
    text += (axis > 0 ? ", " : "") + size;
  }
  return text + "]";
}

std::vector<dibr_tensor> checked_inputs(const std::vector<TensorSpec>& specs, const dibr_tensor* inputs,
                                        std::size_t count) {
  if (count > 0 && inputs == nullptr) fail(DIBR_RUNTIME_INVALID_ARGUMENT, "inputs is NULL, but count is ", count);
  if (count > specs.size()) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "the model takes ", specs.size(), " inputs (", names_of(specs), "), got ",
         count);
  }
  std::vector<const dibr_tensor*> given(specs.size(), nullptr);
  std::size_t unnamed = 0;
  for (std::size_t index = 0; index < count; ++index) {
    std::size_t place = unnamed;
    if (inputs[index].name != nullptr) {
      for (place = 0; place < specs.size() && specs[place].name != inputs[index].name; ++place) {
      }
      if (place == specs.size()) {
        fail(DIBR_RUNTIME_INVALID_ARGUMENT, "the model has no input ", one_line(inputs[index].name),
             ", its inputs are ", names_of(specs));
      }
    } else if (index != unnamed) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "input ", index, " has no name, but comes behind one that has");
    } else {
      ++unnamed;
    }
    if (given[place] != nullptr) fail(DIBR_RUNTIME_INVALID_ARGUMENT, "input ", specs[place].name, " is given twice");
    given[place] = &inputs[index];
  }
  std::vector<dibr_tensor> ordered;
  std::map<std::string, std::int64_t> sizes;
  for (std::size_t place = 0; place < specs.size(); ++place) {
    if (given[place] == nullptr) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "input ", specs[place].name, " is missing, the model's inputs are ",
           names_of(specs));
    }
    check(specs[place], *given[place], sizes);
    ordered.push_back(*given[place]);
    ordered.back().name = specs[place].name.c_str();
  }
  return ordered;
}

std::size_t tensor_bytes(const std::string& what, const ElementType& type, const std::int64_t* shape,
                         std::size_t rank) {
  std::uint64_t bytes = type.bytes;
  bool is_empty = false;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (shape[axis] < 0) fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " has a negative size in ", described(shape, rank));
    is_empty = is_empty || shape[axis] == 0;
  }
  for (std::size_t axis = 0; axis < rank && !is_empty; ++axis) {
    const auto size = static_cast<std::uint64_t>(shape[axis]);
    if (bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / size) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, what, " is too large: ", described(shape, rank));
    }
    bytes *= size;
  }
  return is_empty ? 0 : static_cast<std::size_t>(bytes);
}

void HostResult::add(const std::string& name, dibr_element element, std::vector<std::int64_t> shape, Bytes content) {
  const Tensor& kept = owned_.emplace_back(Tensor{name, std::move(shape), std::move(content)});
  dibr_tensor tensor{};
  tensor.name = kept.name.c_str();
  tensor.element = element;
  tensor.rank = static_cast<std::int32_t>(kept.shape.size());
  tensor.shape = kept.shape.data();
  tensor.data = kept.content.data();
  tensor.bytes = kept.content.size();
  tensors.push_back(tensor);
}

}  // namespace dibr::runtime

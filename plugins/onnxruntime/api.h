// ONNX Runtime's C and C++ API, reached through the pointer that the host hands over: this library links to no
// libonnxruntime.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <cstdint>
#include <string>
#include <utility>

namespace dibr::onnxruntime {

// The lowest API with shape inference and ParallelFor for custom ops: ONNX Runtime 1.17 and newer load this library.
inline constexpr uint32_t kApiVersion = 17;

[[noreturn]] inline void fail(std::string message, OrtErrorCode code = ORT_INVALID_ARGUMENT) {
  throw Ort::Exception(std::move(message), code);
}

// Runs body and turns whatever it throws into a status: no exception leaves the door.
template <class Body>
OrtStatus* guard(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Ort::Exception& error) {
    return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), error.what());
  } catch (const std::bad_alloc&) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, "dibr: out of memory");
  } catch (const std::exception& error) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, error.what());
  } catch (...) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, "dibr: unknown error");
  }
}

}  // namespace dibr::onnxruntime

"""The ONNX Runtime door, driven through graphs built by hand, and helpers for the tests of export and runtime."""

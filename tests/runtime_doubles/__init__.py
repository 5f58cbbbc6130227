"""Test doubles of what provider tensorrt runs on: CUDA's driver, pycuda, TensorRT, and tensors on a device."""

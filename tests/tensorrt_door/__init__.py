"""The TensorRT door: plugins on test doubles and in the real libraries."""

"""The Triton model repository: what is written, and the real server on it."""

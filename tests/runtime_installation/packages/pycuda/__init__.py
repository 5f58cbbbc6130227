"""A pycuda that has its module ``driver`` alone."""

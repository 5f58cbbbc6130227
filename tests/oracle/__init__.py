"""Independent float64 brute-force oracle of the ops, its scenes and the comparison with a kernel's output."""

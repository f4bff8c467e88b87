"""Kernels of shifts and additions in CUDA C++, next to the libraries' matrix products."""

"""CUDA: schedules of the same kernels for a GPU, and their code."""

"""Integer kernels of the engines against their float kernels, by kind and size of layer."""

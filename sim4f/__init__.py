"""Fourier optics of a 4f correlator; knows nothing of ONNX or of the compiler."""

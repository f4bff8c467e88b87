"""ONNX Runtime: the canonical model itself."""

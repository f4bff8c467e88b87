"""Core ML: canonical ONNX to an ML program package."""

"""LiteRT: canonical ONNX to a TFLite flatbuffer."""

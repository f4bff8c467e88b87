"""Accuracy, size and cost of quantized artifacts, next to the public quantizers."""

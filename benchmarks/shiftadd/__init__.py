"""Accuracy of networks of shifts and additions, without training."""

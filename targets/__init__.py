"""Lowerings, one folder a backend, and the device files."""

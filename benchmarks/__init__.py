"""Measurements of edgevit: each figure in RESULTS.md has a command in this package."""

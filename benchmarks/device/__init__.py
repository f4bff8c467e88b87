"""Bundles made here, run by another Python: an emulated board, an older engine."""

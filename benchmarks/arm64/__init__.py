"""ARM64 bundles executed on this machine under emulation."""

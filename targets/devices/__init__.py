"""Device files: what a device can do, as data."""

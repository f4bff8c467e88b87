"""What a device installs: open a bundle and run it with one engine."""

"""Data: optical components and set-ups, each figure with its source."""

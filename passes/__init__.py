"""Graph passes: one pass a file (docs/writing-passes.md)."""

"""Core ML ML programs: read a saved package, and evaluate it with numpy."""

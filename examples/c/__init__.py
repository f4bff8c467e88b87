"""A C program that runs native code without Python."""

"""Kernels by operator class: frozen specifications that write their own TIR."""

"""The MIL operators, a file a class of operators; ``table`` names them all."""

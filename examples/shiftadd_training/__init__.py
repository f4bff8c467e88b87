"""Networks trained to shifts and additions: power-of-two weights, binary attention, mixtures."""

"""Networks trained to shifts and additions: weights, attention, mixtures of experts."""

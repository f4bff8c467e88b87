"""The acceptance figures of the five models on the three backends."""

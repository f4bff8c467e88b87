"""The optical target: canonical graphs as frames of a simulated 4f correlator."""

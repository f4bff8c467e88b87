"""Models and labeled data that the benchmarks and tests use, all fetched as packages."""

"""Suites: benchmarks as typed values. Side-by-side measurements are in `benchmarks/peers`."""

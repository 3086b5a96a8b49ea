"""How cost and memory grow: ``python -m benchmarks scaling``."""

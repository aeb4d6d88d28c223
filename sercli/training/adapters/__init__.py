"""Training of adapters, which classify segments relative to the baseline of their group."""

"""Benchmark of the annotation speed on a machine."""

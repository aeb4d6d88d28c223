"""Fitting models on corpora."""

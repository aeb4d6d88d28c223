"""Fitting of fusions of models."""

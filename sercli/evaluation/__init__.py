"""Evaluation of models on corpora: figures, confidence intervals and leakage checks."""

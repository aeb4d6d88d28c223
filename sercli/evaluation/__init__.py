"""Measuring models on corpora: figures, their intervals, and who was measured."""

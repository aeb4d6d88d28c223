"""Training of neural networks of all families."""

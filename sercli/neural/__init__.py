"""Neural networks for speech: front ends, encoders, layers and devices."""

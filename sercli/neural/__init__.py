"""Neural networks on speech: front ends, layers, and where they run."""

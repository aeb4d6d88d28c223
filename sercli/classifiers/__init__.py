"""Model families: each turns waveforms into features, and features into scores."""

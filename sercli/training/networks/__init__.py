"""How neural networks learn, whatever their family."""

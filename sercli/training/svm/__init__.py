"""Training of support vector machines."""

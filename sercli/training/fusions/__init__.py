"""How fusions of models are weighed."""

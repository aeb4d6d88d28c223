"""How judging by baselines is learned."""

"""How SVMs learn."""

"""Training itself: recipes, steps, losses, and what is saved on the way."""

"""Recipes that make or export models, and the small models that the tests and the demo use."""

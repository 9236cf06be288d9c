"""How far the compressed model's answers are from the input model's."""

"""How a block-formatted weight, and the arithmetic on it, is written with ONNX operators."""

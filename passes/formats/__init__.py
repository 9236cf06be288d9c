"""How a block of numbers becomes bits: pure numpy, no graph."""

"""Products of two activations: what they become (function), and the pass that finds them (rewrite)."""

"""Softmax: how models write it (form), what it becomes (function), and the pass between them (rewrite)."""

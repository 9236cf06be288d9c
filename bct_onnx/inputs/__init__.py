"""Inputs for a model: made from its signature and its own answers, or read from a file."""

"""Looking at a graph and changing it."""

"""Compare a float model with compressed ones: file, loading, memory, latency and answers, side by side.

It is what anybody runs on a model of theirs; the project's documented figures are made in `benchmarks/`.
"""

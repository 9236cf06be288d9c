"""Compare a float model with compressed ones: file, loading, memory, latency and answers, side by side."""

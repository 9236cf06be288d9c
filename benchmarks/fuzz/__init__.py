"""Random and damaged models against the compressor: every run must end with a verified model or one line."""

"""Real samples, texts, pictures and sounds, as feeds of a model: through transformers' own processors."""

from bct_onnx.samples.feeds import data_feeds, sample_inputs

__all__ = ["data_feeds", "sample_inputs"]

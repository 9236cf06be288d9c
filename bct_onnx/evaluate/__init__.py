"""Score ONNX models side by side on labelled data; the first model is the reference."""

from .embeddings import evaluate_embeddings
from .glue import TASKS, evaluate_glue
from .images import Preprocess, evaluate_images
from .perplexity import evaluate_perplexity
from .records import Evaluation, ModelResult, Score, Settings
from .retrieval import evaluate_retrieval

__all__ = [
    "TASKS",
    "Evaluation",
    "ModelResult",
    "Preprocess",
    "Score",
    "Settings",
    "evaluate_embeddings",
    "evaluate_glue",
    "evaluate_images",
    "evaluate_perplexity",
    "evaluate_retrieval",
]

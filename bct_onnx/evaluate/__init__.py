"""Score ONNX models side by side on labelled data; the first model is the reference."""

from .embeddings import evaluate_embeddings
from .glue import TASKS, evaluate_glue
from .images import Preprocess, evaluate_images
from .perplexity import evaluate_perplexity
from .questions import evaluate_questions
from .records import Evaluation, ModelResult, Score, Settings
from .retrieval import evaluate_retrieval
from .speech import evaluate_speech
from .texts import evaluate_texts
from .tokens import evaluate_tokens

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
    "evaluate_questions",
    "evaluate_retrieval",
    "evaluate_speech",
    "evaluate_texts",
    "evaluate_tokens",
]

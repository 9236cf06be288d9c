"""What several benchmarks need: where data and models are, silence of other tools."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("BCT_DATA", ROOT.parent / "shared" / "data"))
# Pretrained models as optimum exports them, tokenizer beside model.onnx: minilm/ (all-MiniLM-L6-v2), smollm2/
# (SmolLM2-135M), glue/TASK/ (MiniLM fine-tuned).
MODELS = Path(os.environ.get("BCT_MODELS", ROOT.parent / "shared" / "models"))
FIXTURES = ROOT / "models" / "fixtures"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep other tools' prints, log lines and warnings from the terminal."""
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)

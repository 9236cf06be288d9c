"""Sentence embeddings of one package by the programs that load it: sentence-transformers, optimum, Transformers.js.

    python -m benchmarks.hosts OUT JS_OUT --node FOLDER

OUT is a package as it comes, JS_OUT one made with `--layout transformers.js`, FOLDER a `node_modules` with
@huggingface/transformers. Wants the extra `export` and sentence-transformers, and BCT_DATA for the pairs of STS-B.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from .common import DATA
from .javascript import embed_in_browser, embed_in_node, find_browser, lay_out

Embed = Callable[[Sequence[str]], NDArray[Any]]
SECONDS = 540
PAIRS = Path("glue/STS-B/dev.jsonl")


@click.command()
@click.argument("package", metavar="OUT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("js_package", metavar="JS_OUT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--node", "modules", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--float", "source", type=click.Path(exists=True, path_type=Path), help="The checkpoint, for torch.")
@click.option("--pairs", default=1500, show_default=True, help="The first so many pairs.")
def main(package: Path, js_package: Path, modules: Path, source: Path | None, pairs: int) -> None:
    """Print Spearman's correlation of cosine and human judgement, by program."""
    from scipy.stats import spearmanr

    lines = (DATA / PAIRS).read_text(encoding="utf-8").splitlines()[:pairs]
    records = [json.loads(line) for line in lines]
    texts = [record[side] for side in ("sentence1", "sentence2") for record in records]
    programs: dict[str, Embed] = {
        "sentence-transformers": lambda texts: _sentence_transformers(package, "onnx", texts),
        "optimum": lambda texts: _optimum(package, texts),
        "Transformers.js, Node": lambda texts: _javascript(js_package, modules, None, texts),
    }
    if source:
        programs["sentence-transformers, float"] = lambda texts: _sentence_transformers(source, "torch", texts)
    if browser := find_browser():
        programs["Transformers.js, Chromium"] = lambda texts: _javascript(js_package, modules, browser, texts)
    click.echo(f"STS-B dev, {len(records)} pairs: Spearman")
    for name, embed in programs.items():
        rows = embed(texts)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = (rows[: len(records)] * rows[len(records) :]).sum(axis=1)
        score = spearmanr(cosines, [record["label"] for record in records]).statistic
        click.echo(f"{name:30} {100 * score:.2f}")


def _sentence_transformers(package: Path, backend: str, texts: Sequence[str]) -> NDArray[Any]:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(str(package), backend=backend).encode(list(texts)))


def _optimum(package: Path, texts: Sequence[str]) -> NDArray[Any]:
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package)
    model = ORTModelForFeatureExtraction.from_pretrained(package)
    rows = []
    for at in range(0, len(texts), 32):
        batch = tokenizer(list(texts[at : at + 32]), padding=True, truncation=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        hidden = model(**batch).last_hidden_state
        rows.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(rows)


def _javascript(package: Path, modules: Path, browser: str | None, texts: Sequence[str]) -> NDArray[Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        lay_out(folder, modules, {"package": package}, texts)
        found = embed_in_browser(folder, browser, SECONDS) if browser else embed_in_node(folder, SECONDS)
    return found["package"]


if __name__ == "__main__":
    main()

"""The section of a model card that says what a package is, how good, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bct_onnx.table import format_change
from bct_onnx.version import __version__

from .contents import GENAI_CONFIG, MANIFEST, OPERATORS_CONFIG
from .export import PAST
from .manifest import ModelRecord, Package

CARD = "README.md"
_BEGIN, _END = "<!-- bct_onnx: begin -->", "<!-- bct_onnx: end -->"
# Classes of optimum by task; what has none is loaded by its pipeline.
_CLASSES = {
    "audio-classification": "ORTModelForAudioClassification",
    "automatic-speech-recognition": "ORTModelForSpeechSeq2Seq",
    "feature-extraction": "ORTModelForFeatureExtraction",
    "fill-mask": "ORTModelForMaskedLM",
    "image-classification": "ORTModelForImageClassification",
    "question-answering": "ORTModelForQuestionAnswering",
    "text-classification": "ORTModelForSequenceClassification",
    "text-generation": "ORTModelForCausalLM",
    "text2text-generation": "ORTModelForSeq2SeqLM",
    "token-classification": "ORTModelForTokenClassification",
}


def add_section(package: Package, card: Path) -> None:
    """Write the section at the end of a model card, in place of an older one; the card is made where there is none."""
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {package.plan.target.name}\n"
    text = re.sub(rf"\n*{_BEGIN}.*?{_END}\n*", "\n", text, flags=re.DOTALL).rstrip("\n")
    card.write_text(f"{text}\n\n{_BEGIN}\n{section(package)}{_END}\n", encoding="utf-8")


def section(package: Package) -> str:
    """Return the section as Markdown."""
    ratio = package.bytes_before / package.bytes
    lines = [
        "## Compressed with bct_onnx",
        "",
        f"{format_change(package.bytes_before, package.bytes)}, {ratio:.2f} times smaller, by bct_onnx {__version__}."
        f" Runs on ONNX Runtime {package.min_onnxruntime} or newer.",
        "",
        *_table([{**row, "model": f"`{row['model']}`"} for row in models_table(package)]),
        "",
    ]
    if package.end_to_end:
        said = ", ".join(f"{name} {value:.4g}" for name, value in package.end_to_end.figures.items())
        lines += [
            f"At its task, {package.end_to_end.task}, float against compressed on {package.end_to_end.examples}"
            f" examples: {said}.",
            "",
        ]
    loading = list(_loading(package))
    lines += ["### Load it", "", *loading] if loading else []
    listed = f"`{MANIFEST}` has hashes, options and every figure"
    if package.operators:
        listed += f"; `{OPERATORS_CONFIG}` the operators, for a reduced build of ONNX Runtime"
    lines += [f"{listed}. `bct-onnx verify FOLDER` checks it all again.", ""]
    return "\n".join(lines)


def models_table(package: Package) -> list[dict[str, str]]:
    """Return what is to be said of each model, column by column; columns that no model fills are left out."""
    rows = [{"model": name, **_figures(record)} for name, record in package.models.items()]
    filled = [column for column in rows[0] if any(row[column] for row in rows)]
    return [{column: row[column] for column in filled} for row in rows]


def _figures(record: ModelRecord) -> dict[str, str]:
    report, verification, memory = record.report, record.report.verification, record.report.memory
    errors = [e.error for e in verification.outputs.values() if e.error is not None] if verification else []
    before, after = (verification.reference_latency, verification.latency) if verification else (None, None)
    return {
        "preset": report.preset,
        "size": format_change(report.input.bytes, report.output.bytes),
        "smaller": f"{report.ratio:.2f}x",
        "largest error": f"{max(errors):.3f}" if errors else "",
        "time of a run": f"{before.min_ms:.1f} to {after.min_ms:.1f} ms" if before and after else "",
        "peak memory": format_change(memory.peak_bytes_before, memory.peak_bytes) if memory else "",
    }


def _table(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    for row in (list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)):
        yield f"| {' | '.join(row)} |"


def _loading(package: Package) -> Iterator[str]:
    """Yield what to type to load the package, for the libraries that can."""
    folder, plan = package.plan.target.name, package.plan
    task = (plan.task or "").removesuffix(PAST)
    files = {path.name for path in plan.copies}
    if plan.layout == "transformers.js":
        if task:
            yield from _code(
                "js",
                'import { pipeline } from "@huggingface/transformers";',
                f'const run = await pipeline("{task}", "{folder}");',
            )
        return
    if GENAI_CONFIG in files:
        yield from _code("python", "import onnxruntime_genai", f'model = onnxruntime_genai.Model("{folder}")')
        return
    if "modules.json" in files:
        yield from _code(
            "python",
            "from sentence_transformers import SentenceTransformer",
            f'model = SentenceTransformer("{folder}", backend="onnx")',
        )
    if task in _CLASSES:
        name = _class(task, package)
        yield from _code(
            "python",
            f"from optimum.onnxruntime import {name}, pipeline",
            f'model = {name}.from_pretrained("{folder}")',
            f'run = pipeline("{task}", model="{folder}")',
        )
    elif task:
        yield from _code(
            "python", "from optimum.onnxruntime import pipeline", f'run = pipeline("{task}", model="{folder}")'
        )


def _class(task: str, package: Package) -> str:
    """Return optimum's class; speech is recognized by one model or by two."""
    one = task == "automatic-speech-recognition" and len(package.models) == 1
    return "ORTModelForCTC" if one else _CLASSES[task]


def _code(language: str, *lines: Any) -> Iterator[str]:
    yield from (f"```{language}", *lines, "```", "")

"""Where compressed models run, and the forms that are fast or possible there: docs/targets.md has what was measured."""

from __future__ import annotations

from dataclasses import dataclass

STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})


@dataclass(frozen=True)
class Target:
    """A program that runs models.

    Attributes:
        presets: those whose bits it has a form for.
        lowering: the form of weights, or None for the preset's own.
        by_token: the form of narrow codes in models that decode token by token, in place of dense weights.
        runtime: the oldest ONNX Runtime in use there, or None for no more than the forms ask for.
        domains: domains of all operators it knows, or None for those of ONNX Runtime.
    """

    presets: frozenset[str]
    lowering: str | None = None
    by_token: str = "both"
    runtime: str | None = None
    domains: frozenset[str] | None = None


BITS = frozenset({"fast", "balanced", "small"})
TARGETS = {
    "onnxruntime": Target(BITS | {"portable", "paper"}),
    # WebAssembly has no fast kernel of MatMulNBits. Transformers.js 3 brings onnxruntime-node 1.21 and -web 1.22.
    "web": Target(BITS, "dense", "dense", "1.21"),
    "openvino": Target(BITS | {"portable"}, "qdq", "qdq", domains=STANDARD),
}
DEFAULT_TARGET = "onnxruntime"

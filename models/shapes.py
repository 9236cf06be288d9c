"""Random-weight models in the shape of well-known ones, written as TorchScript exporters write them.

    python -m models.shapes bert-base bert-base.onnx
    python -m models.shapes llama-1b llama.onnx --vocabulary 128256

Attention, activations and RMS normalization are decomposed into plain operators, batch and sequence are
free, weights are seeded and normal(0, 0.02): size, speed and structure are those of the real model.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click
import numpy as np
from onnx import TensorProto

from models.blocks import (
    LOWEST,
    bias,
    causal_bias,
    conv1d,
    decoder_inputs,
    decoder_outputs,
    dims,
    join_heads,
    layer_norm,
    length,
    linear,
    padding_bias,
    rms_norm,
    rotary_tables,
    rotate,
)
from models.writer import Writer


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: `hidden` and `intermediate` are widths, `positions` the longest sequence."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    positions: int

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


def bert(w: Writer, s: Shape) -> None:
    """BERT encoder with pooler: post-normalization, Erf GELU, additive padding mask."""
    ids, mask, types = (
        w.input(name, TensorProto.INT64, "batch_size", "sequence_length")
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    scope = "/embeddings"
    tables = {
        kind: w.weight(f"embeddings.{kind}_embeddings.weight", rows, s.hidden)
        for kind, rows in (("word", s.vocabulary), ("position", s.positions), ("token_type", 2))
    }
    end = w.op(scope, "Unsqueeze", length(w, scope, ids, 1), [0])
    positions = w.op(scope, "Slice", np.arange(s.positions)[None], [0], end, [1], [1])
    x = w.op(
        scope,
        "Add",
        w.op(f"{scope}/word_embeddings", "Gather", tables["word"], ids),
        w.op(f"{scope}/token_type_embeddings", "Gather", tables["token_type"], types),
    )
    x = w.op(scope, "Add", x, w.op(f"{scope}/position_embeddings", "Gather", tables["position"], positions))
    x = layer_norm(w, f"{scope}/LayerNorm", x, s.hidden, 1e-12)
    added = padding_bias(w, mask)
    for i in range(s.layers):
        result = "last_hidden_state" if i == s.layers - 1 else None
        x = _bert_layer(w, f"/encoder/layer.{i}", x, added=added, s=s, result=result)
    w.output("last_hidden_state", "batch_size", "sequence_length", s.hidden)
    first = w.op("/pooler", "Gather", x, 0, axis=1)
    weight, offset = w.weight("pooler.dense.weight", s.hidden, s.hidden), bias(w, "pooler.dense", s.hidden)
    pooled = w.op("/pooler/dense", "Gemm", first, weight, offset, alpha=1.0, beta=1.0, transB=1)
    w.output(w.op("/pooler/activation", "Tanh", pooled, result="pooler_output"), "batch_size", s.hidden)


def _bert_layer(w: Writer, scope: str, x: str, *, added: str, s: Shape, result: str | None) -> str:
    own = f"{scope}/attention/self"
    batch = length(w, own, x, 0)

    def heads(name: str, perm: list[int]) -> str:
        y = linear(w, f"{own}/{name}", x, s.hidden, s.hidden)
        y = w.op(own, "Reshape", y, dims(w, own, batch, -1, s.heads, s.head))
        return w.op(own, "Transpose", y, perm=perm)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = w.op(own, "Div", w.op(own, "MatMul", query, key), float(np.sqrt(s.head)))
    weights = w.op(own, "Softmax", w.op(own, "Add", scores, added), axis=-1)
    y = join_heads(w, own, w.op(own, "MatMul", weights, value), s.hidden)
    y = linear(w, f"{scope}/attention/output/dense", y, s.hidden, s.hidden)
    y = w.op(f"{scope}/attention/output", "Add", y, x)
    x = layer_norm(w, f"{scope}/attention/output/LayerNorm", y, s.hidden, 1e-12)
    act = f"{scope}/intermediate/intermediate_act_fn"
    y = linear(w, f"{scope}/intermediate/dense", x, s.hidden, s.intermediate)
    erf = w.op(act, "Erf", w.op(act, "Div", y, float(np.sqrt(2))))
    y = w.op(act, "Mul", w.op(act, "Mul", y, w.op(act, "Add", erf, 1.0)), 0.5)
    y = linear(w, f"{scope}/output/dense", y, s.intermediate, s.hidden)
    y = w.op(f"{scope}/output", "Add", y, x)
    return layer_norm(w, f"{scope}/output/LayerNorm", y, s.hidden, 1e-12, result=result)


def gpt2(w: Writer, s: Shape) -> None:
    """GPT-2 decoder with past: Gemm between Reshapes, causal buffer, tanh GELU, output tied to the table."""
    ids, mask, positions, pasts = decoder_inputs(w, s.layers, s.heads, s.head)
    scope = "/transformer"
    table = w.weight("transformer.wte.weight", s.vocabulary, s.hidden)
    x = w.op(
        scope,
        "Add",
        w.op(f"{scope}/wte", "Gather", table, ids),
        w.op(f"{scope}/wpe", "Gather", w.weight("transformer.wpe.weight", s.positions, s.hidden), positions),
    )
    added = padding_bias(w, mask)
    causal = w.buffer("transformer.h.attn.bias", np.tri(s.positions, dtype=bool)[None, None])
    for i, past in enumerate(pasts):
        x = _gpt2_layer(w, i, x, added=added, causal=causal, past=past, s=s)
    x = layer_norm(w, f"{scope}/ln_f", x, s.hidden, 1e-5)
    projection = w.op("/lm_head", "Transpose", table, perm=[1, 0])
    w.op("/lm_head", "MatMul", x, projection, result="logits")
    decoder_outputs(w, s.layers, s.heads, s.head, s.vocabulary)


def _gpt2_layer(w: Writer, i: int, x: str, *, added: str, causal: str, past: tuple[str, str], s: Shape) -> str:
    scope = f"/transformer/h.{i}"
    own, act = f"{scope}/attn", f"{scope}/mlp/act"
    y = layer_norm(w, f"{scope}/ln_1", x, s.hidden, 1e-5)
    y = conv1d(w, f"{own}/c_attn", y, s.hidden, 3 * s.hidden)
    parts = [f"{own}/Split_output_{k}" for k in range(3)]
    w.op(own, "Split", y, [s.hidden] * 3, result=parts, axis=2)
    batch, tokens = length(w, own, parts[0], 0), length(w, own, parts[0], 1)

    def heads(part: str) -> str:
        y = w.op(own, "Reshape", part, dims(w, own, batch, tokens, s.heads, s.head))
        return w.op(own, "Transpose", y, perm=[0, 2, 1, 3])

    query, key, value = (heads(part) for part in parts)
    key = w.op(own, "Concat", past[0], key, result=f"present.{i}.key", axis=-2)
    value = w.op(own, "Concat", past[1], value, result=f"present.{i}.value", axis=-2)
    scores = w.op(own, "MatMul", query, w.op(own, "Transpose", key, perm=[0, 1, 3, 2]))
    scores = w.op(own, "Div", scores, float(np.sqrt(s.head)))
    total = length(w, own, key, -2)
    start = w.op(own, "Unsqueeze", w.op(own, "Sub", total, tokens), [0])
    end = w.op(own, "Unsqueeze", total, [0])
    rows = w.op(own, "Slice", causal, start, end, [2], [1])
    allowed = w.op(own, "Slice", rows, [0], end, [3], [1])
    scores = w.op(own, "Add", w.op(own, "Where", allowed, scores, LOWEST), added)
    y = join_heads(w, own, w.op(own, "MatMul", w.op(own, "Softmax", scores, axis=-1), value), s.hidden)
    x = w.op(scope, "Add", conv1d(w, f"{own}/c_proj", y, s.hidden, s.hidden), x)
    y = layer_norm(w, f"{scope}/ln_2", x, s.hidden, 1e-5)
    y = conv1d(w, f"{scope}/mlp/c_fc", y, s.hidden, s.intermediate)
    cube = w.op(act, "Mul", w.op(act, "Pow", y, 3.0), 0.044715)
    tanh = w.op(act, "Tanh", w.op(act, "Mul", w.op(act, "Add", y, cube), float(np.sqrt(2 / np.pi))))
    y = w.op(act, "Mul", w.op(act, "Mul", y, 0.5), w.op(act, "Add", tanh, 1.0))
    return w.op(scope, "Add", x, conv1d(w, f"{scope}/mlp/c_proj", y, s.intermediate, s.hidden))


def llama(w: Writer, s: Shape) -> None:
    """Llama decoder with past: RMS norm, rotary positions, grouped heads, SiLU, own output weight."""
    ids, mask, positions, pasts = decoder_inputs(w, s.layers, s.kv_heads, s.head)
    x = w.op("/model/embed_tokens", "Gather", w.weight("model.embed_tokens.weight", s.vocabulary, s.hidden), ids)
    added = causal_bias(w, ids, mask, pasts[0][0])
    angles = rotary_tables(w, positions, s.head)
    for i, past in enumerate(pasts):
        x = _llama_layer(w, i, x, added=added, angles=angles, past=past, s=s)
    x = rms_norm(w, "/model/norm", x, s.hidden)
    w.op("/lm_head", "MatMul", x, w.kernel(s.hidden, s.vocabulary), result="logits")
    decoder_outputs(w, s.layers, s.kv_heads, s.head, s.vocabulary)


def _llama_layer(
    w: Writer, i: int, x: str, *, added: str, angles: tuple[str, str], past: tuple[str, str], s: Shape
) -> str:
    scope = f"/model/layers.{i}"
    own, mlp = f"{scope}/self_attn", f"{scope}/mlp"
    y = rms_norm(w, f"{scope}/input_layernorm", x, s.hidden)
    batch, tokens = length(w, own, y, 0), length(w, own, y, 1)

    def heads(name: str, count: int) -> str:
        z = w.op(f"{own}/{name}", "MatMul", y, w.kernel(s.hidden, count * s.head))
        z = w.op(own, "Reshape", z, dims(w, own, batch, tokens, -1, s.head))
        return w.op(own, "Transpose", z, perm=[0, 2, 1, 3])

    def repeat(z: str) -> str:
        total, groups = length(w, own, z, 2), s.heads // s.kv_heads
        wide = dims(w, own, batch, s.kv_heads, groups, total, s.head)
        z = w.op(own, "Expand", w.op(own, "Unsqueeze", z, [2]), wide)
        return w.op(own, "Reshape", z, dims(w, own, batch, s.heads, total, s.head))

    query = rotate(w, own, heads("q_proj", s.heads), angles, s.head)
    key = rotate(w, own, heads("k_proj", s.kv_heads), angles, s.head)
    key = w.op(own, "Concat", past[0], key, result=f"present.{i}.key", axis=-2)
    value = w.op(own, "Concat", past[1], heads("v_proj", s.kv_heads), result=f"present.{i}.value", axis=-2)
    scores = w.op(own, "MatMul", query, w.op(own, "Transpose", repeat(key), perm=[0, 1, 3, 2]))
    scores = w.op(own, "Add", w.op(own, "Div", scores, float(np.sqrt(s.head))), added)
    y = join_heads(w, own, w.op(own, "MatMul", w.op(own, "Softmax", scores, axis=-1), repeat(value)), s.hidden)
    x = w.op(scope, "Add", x, w.op(f"{own}/o_proj", "MatMul", y, w.kernel(s.hidden, s.hidden)))
    y = rms_norm(w, f"{scope}/post_attention_layernorm", x, s.hidden)
    gate = w.op(f"{mlp}/gate_proj", "MatMul", y, w.kernel(s.hidden, s.intermediate))
    gate = w.op(f"{mlp}/act_fn", "Mul", gate, w.op(f"{mlp}/act_fn", "Sigmoid", gate))
    y = w.op(mlp, "Mul", gate, w.op(f"{mlp}/up_proj", "MatMul", y, w.kernel(s.hidden, s.intermediate)))
    return w.op(scope, "Add", x, w.op(f"{mlp}/down_proj", "MatMul", y, w.kernel(s.intermediate, s.hidden)))


MODELS: dict[str, tuple[Callable[[Writer, Shape], None], Shape]] = {
    "bert-base": (bert, Shape(12, 768, 12, 12, 3072, 30_522, 512)),
    "minilm": (bert, Shape(6, 384, 12, 12, 1536, 30_522, 512)),
    "gpt2": (gpt2, Shape(12, 768, 12, 12, 3072, 50_257, 1024)),
    "llama-1b": (llama, Shape(16, 2048, 32, 8, 8192, 32_000, 2048)),
}


def write(name: str, path: Path, seed: int = 0, external: bool = False, **sizes: int) -> None:
    """Write the model `name` of MODELS to `path`, some of the fields of its Shape replaced by `sizes`.

    With `external` the weights are streamed to `PATH.data` beside it, 64 MB in memory at a time.
    """
    build, shape = MODELS[name]
    with Writer(path, seed, external) as writer:
        build(writer, replace(shape, **sizes))


def _size_options(command: Callable[..., None]) -> Callable[..., None]:
    for field in reversed(fields(Shape)):
        command = click.option(f"--{field.name.replace('_', '-')}", type=click.IntRange(min=1))(command)
    return command


@click.command()
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True)
@click.option("--external/--inline", default=None, help="Weights in PATH.data; default: only for llama-1b.")
@_size_options
def main(name: str, path: Path, seed: int, external: bool | None, **sizes: int | None) -> None:
    """Write the model NAME with random weights to PATH."""
    given = {key: value for key, value in sizes.items() if value is not None}
    write(name, path, seed, name == "llama-1b" if external is None else external, **given)


if __name__ == "__main__":
    main()

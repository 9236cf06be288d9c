"""Row-wise dynamic quantization of activations, each once for all products that read it."""

from __future__ import annotations

from typing import NamedTuple

import onnx_graphsurgeon as gs

from ..functions import quantize_rows
from ..graph.editor import Emitter
from ..graph.features import Feature
from ..graph.origin import Origins
from ..graph.shapes import rank


class QuantizedRows(NamedTuple):
    """A row-wise quantized activation: (q - zero_point) * scale."""

    q: gs.Variable
    scale: gs.Variable
    zero_point: int


class RowQuantizer:
    """Writes the quantization of activations, each once in a graph, and what they have in common."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self._rows: dict[tuple[str, int], QuantizedRows] = {}
        self._zeros: dict[tuple[object, ...], gs.Variable] = {}
        self._origins = Origins()

    def quantize(self, at: Emitter, x: gs.Tensor, k: int, floor: float | None) -> QuantizedRows:
        """Write the quantization of a float activation [..., k], which is never below `floor`, over its last axis."""
        key = (x.name, at.scope)
        if key not in self._rows:
            self._rows[key] = self._write(at, x, k, floor, f"x{len(self._rows)}")
        return self._rows[key]

    def _write(self, at: Emitter, x: gs.Tensor, k: int, floor: float | None, name: str) -> QuantizedRows:
        above, attrs = floor is not None, {**quantize_rows.attributes(floor), "block_size": k}
        point = quantize_rows.zero_point(floor)
        # A vector has no axis of rows to give a scale each.
        if not at.has(Feature.BLOCKWISE) or rank(x) is None:
            q, scale = at.call(quantize_rows.DIVISION[above], x, name=name, attrs=attrs)
            return QuantizedRows(q, scale, point)
        # Activations that have the same rows in every run share their zero points.
        shape = at.proven_shape(x)
        key = (self._origins.find(x).name if shape is None else shape[:-1], point, at.scope)
        if key in self._zeros:
            q, scale = at.call(quantize_rows.LIKE[above], x, self._zeros[key], name=name, attrs=attrs)
            return QuantizedRows(q, scale, point)
        q, scale, self._zeros[key] = at.call(quantize_rows.OWN[above], x, name=name, attrs=attrs)
        return QuantizedRows(q, scale, point)

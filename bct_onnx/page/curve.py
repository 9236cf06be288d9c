"""The curve of size against error as SVG that goes into a page: its colours are the page's, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

# Colours that matplotlib writes, and those of the page that take their place.
INK, MUTED, GRID, ACCENT, MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", MARK: "--mark"}
# Inches at 72 to the inch, so that a point of a font is a pixel of the page: for a desktop, and for a phone.
_WIDE, _NARROW = (12.0, 5.0), (4.6, 5.2)
# Columns of the legend, below the picture: nothing is drawn over.
_COLUMNS = {_WIDE: 4, _NARROW: 1}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
# A curve of errors is drawn over so many times what was asked for: beyond, answers have no worth.
_HIGHEST = 12


@dataclass(frozen=True)
class Curve:
    """The picture in two sizes, and in words for those who do not see it."""

    wide: str
    narrow: str
    words: str


def draw(search: Mapping[str, Any], input_bytes: int) -> Curve | None:
    """Return the curve of a report's search, or None where it has none."""
    points = [(each["bytes"], each["error"]) for each in search.get("curve") or () if each["error"] > 0]
    if len(points) < 2:
        return None
    words = (
        f"Size of the weights against the error of the outputs: from {points[0][0] / 1e6:.3g} MB with an expected error"
        f" of {points[0][1]:.3g} to {points[-1][0] / 1e6:.3g} MB with {points[-1][1]:.3g}. Chosen:"
        f" {search['weight_bytes'] / 1e6:.3g} MB, {search['expected_error']:.3g} expected and"
        f" {search['measured_error']:.3g} measured."
    )
    wide, narrow = (_svg(points, search, input_bytes, size) for size in (_WIDE, _NARROW))
    return Curve(wide, narrow, words)


def _svg(
    points: Sequence[tuple[int, float]], search: Mapping[str, Any], input_bytes: int, size: tuple[float, float]
) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"bct_onnx {size}",
        "font.family": "sans-serif",
        "font.size": 12,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "grid.color": GRID,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        _draw(figure.add_subplot(facecolor="none"), points, search, input_bytes)
        figure.legend(loc="outside lower left", frameon=False, ncols=_COLUMNS[size])
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _for_page(file.getvalue())


def _draw(axes: Any, points: Sequence[tuple[int, float]], search: Mapping[str, Any], input_bytes: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    chosen, measured, limit = search["weight_bytes"], search["measured_error"], search["goal"].get("max_drop")
    highest = max(_HIGHEST * max(limit or 0.0, measured, search["expected_error"]), points[1][1])
    sizes, errors = zip(*(point for point in points if point[1] <= highest), strict=True)
    axes.plot([each / 1e6 for each in sizes], errors, color=ACCENT, linewidth=2, label="expected from one run a weight")
    axes.plot(chosen / 1e6, search["expected_error"], "o", color=ACCENT, markersize=8, label="chosen, expected")
    axes.plot(chosen / 1e6, measured, "D", color=MARK, markersize=8, label="chosen, measured")
    if limit is not None:
        axes.axhline(limit, color=MARK, linestyle="--", linewidth=1.2, label=f"bound {limit:g}")
    if (goal := _goal_bytes(search["goal"], input_bytes)) is not None:
        axes.axvline(goal / 1e6, color=MARK, linestyle="--", linewidth=1.2, label=f"goal {goal / 1e6:.3g} MB")
    axes.set(xlabel="weights, MB", ylabel="error of the outputs", yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _goal_bytes(goal: Mapping[str, Any], input_bytes: int) -> float | None:
    ratio, size = goal.get("target_ratio"), goal.get("target_bytes")
    return input_bytes / ratio if ratio else size


def _for_page(svg: str) -> str:
    """Return the picture as an element of a page: without metadata and unused ids, in the page's colours."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for element in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(element)
    used = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for key in ("width", "height"):
        del root.attrib[key]
    root.set("aria-hidden", "true")
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text

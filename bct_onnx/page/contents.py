"""What a page says, from a report or a manifest as data: headline figures, then a section for every model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError
from bct_onnx.fidelity.kinds import CACHE, CACHE_RANK
from bct_onnx.package.contents import MANIFEST, read_json
from bct_onnx.package.manifest import read_manifest
from bct_onnx.table import format_bytes, format_change

from .coverage import Covered, find_coverage
from .curve import Curve, draw
from .errors import Errors, find_errors
from .layers import Layers, find_layers
from .sizes import SMALLEST_FLOAT, Size, Top, WeightSize, by_operator, by_weight, by_width, floats, largest_first, top

# Reasons of a pass that are shown.
MOST_REASONS = 6


@dataclass(frozen=True)
class Figure:
    """A headline figure: what it is, the figure, a sentence on it."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True)
class Cost:
    """Something measured before and after, in words; `gain` says how many times less it is."""

    name: str
    before: str
    after: str
    gain: float | None


@dataclass(frozen=True)
class PassRow:
    """What a pass did, with its commonest reasons for leaving nodes alone, each with their number."""

    name: str
    replaced: int
    left: int
    reasons: Sequence[tuple[str, int]]
    more: int


@dataclass(frozen=True)
class Section:
    """All that is said of one model; None or empty where it is not known."""

    name: str
    source: str
    target: str
    codes: str
    figures: Sequence[Figure]
    notes: Sequence[str]
    operators: Sequence[Size]
    weights: Top
    widths: Sequence[Size]
    layers: Layers | None
    curve: Curve | None
    search: str
    errors: Errors | None
    costs: Sequence[Cost]
    timed: str
    floats: Top
    floats_share: str
    coverage: Covered | None
    passes: Sequence[PassRow]
    facts: Sequence[tuple[str, str]]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """A whole page: of one model, or of a package with figures of its own and a table of its models."""

    title: str
    figures: Sequence[Figure]
    sections: Sequence[Section]
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]
    version: str

    @property
    def whole(self) -> bool:
        """Tell whether the page is that of a package."""
        return bool(self.figures)


def read_data(path: Path) -> Mapping[str, Any]:
    """Return what a report's JSON file, or the manifest of a package's folder, says; raises BctError otherwise."""
    data = read_manifest(path) if path.is_dir() else read_json(path)
    if not isinstance(data, dict) or not ({"input", "output"} <= data.keys() or "models" in data):
        raise BctError(f"{path}: is neither what --json writes nor a package's {MANIFEST}")
    return data


def page_of(data: Mapping[str, Any]) -> Page:
    """Return the page of a report, or of a package, as `--json` writes them or a manifest has them.

    Raises BctError where that is of another version and lacks what is needed.
    """
    try:
        return _package(data) if "models" in data else _single(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"{type(error).__name__} {error}"
        raise BctError(f"the report is not one that this version writes ({what}); make it anew with --json") from error


def _single(report: Mapping[str, Any]) -> Page:
    path = Path(report["input"]["path"])
    section = _section(f"{path.parent.name}/{path.name}" if path.parent.name else path.name, report)
    return Page(section.name, (), (section,), (), (), str(report.get("bct_onnx", "")))


def _package(data: Mapping[str, Any]) -> Page:
    reports = data.get("reports") or {name: _as_report(name, model) for name, model in data["models"].items()}
    sections = [_section(name, report) for name, report in reports.items()]
    smaller = Figure("Smaller", _times(data["ratio"]), format_change(data["bytes_before"], data["bytes"]))
    figures, task = [smaller], data.get("end_to_end")
    if task:
        detail = f"{task['task']}, {task['examples']} examples"
        figures += [Figure(name.capitalize(), f"{value:.4g}", detail) for name, value in task["figures"].items()]
    figures.append(Figure("Runs on", f"≥ {data['min_onnxruntime']}", "ONNX Runtime"))
    facts = [
        ("task", data.get("task") or "not known"),
        ("exported here", "yes" if data.get("exported") else "no"),
        *((f"left out: {name}", why) for name, why in data.get("left_out", {}).items()),
    ]
    return Page(data["source"], figures, sections, data.get("notes", ()), facts, data["bct_onnx"])


def _as_report(name: str, model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a manifest says of a model in the form of a report: without weights one by one."""
    passes = [
        {"name": each, "replaced": count["replaced"], "left": count["left"], "skipped": []}
        for each, count in model["passes"].items()
    ]
    output = {key: model[key] for key in ("bytes", "sha256", "opset", "ir_version", "min_onnxruntime")}
    source = {"path": name, "bytes": model["bytes_before"], "sha256": model["sha256_before"]}
    return {**model, "input": source, "output": {**output, "path": name}, "passes": passes}


def _section(name: str, report: Mapping[str, Any]) -> Section:
    source, target, search = report["input"], report["output"], report.get("search")
    verification, left = report.get("verification"), floats(report)
    weights = by_weight(report) if report.get("tensors") else []
    errors = find_errors(verification) if verification else None
    figures = list(_figures(report, errors))
    return Section(
        name=name,
        source=source["path"],
        target=target["path"],
        codes=_codes(report),
        figures=figures,
        notes=report["notes"],
        operators=by_operator(report),
        weights=top(largest_first(weights)),
        widths=by_width(weights),
        layers=find_layers(weights),
        curve=draw(search, source["bytes"]) if search else None,
        search=_search(search) if search else "",
        errors=errors,
        costs=list(_costs(report)),
        timed=_shapes(verification["latency"]["shapes"]) if verification else "",
        floats=top(left, SMALLEST_FLOAT),
        floats_share=_share(left, target["bytes"]),
        coverage=find_coverage(coverage) if (coverage := report.get("coverage")) else None,
        passes=[_pass(each) for each in report["passes"] if each["replaced"] or each["skipped"] or each.get("left")],
        facts=list(_facts(report)),
        cells={figure.title: figure.value for figure in figures},
    )


def _figures(report: Mapping[str, Any], errors: Errors | None) -> Iterator[Figure]:
    """Yield the headline figures, as far as they are known."""
    before, after = report["input"]["bytes"], report["output"]["bytes"]
    yield Figure("Smaller", _times(report["ratio"]), format_change(before, after))
    worst = errors.outputs[0] if errors and errors.outputs else None
    if worst is not None and worst.error is not None:
        allowed = "" if worst.bound is None else f"of {worst.bound:.3g} allowed"
        yield Figure("Largest error", f"{worst.error:.3f}", "; ".join(filter(None, (allowed, worst.impact))))
    elif worst is not None and worst.impact:
        yield Figure("Answers", worst.impact.split()[0], worst.impact.partition(" ")[2])
    latency = _latency(report)
    if latency:
        times = [each["min_ms"] for each in latency]
        yield Figure("Speed", _times(times[0] / times[1]), f"{_ms(times[0])} to {_ms(times[1])} a run")
    if memory := report.get("memory"):
        peaks = memory["peak_bytes_before"], memory["peak_bytes"]
        yield Figure("Peak memory", f"{format_bytes(peaks[1])}", f"to load it; {format_bytes(peaks[0])} before")
    oldest, opset = report["output"]["min_onnxruntime"], report["output"]["opset"]
    yield Figure("Runs on", f"≥ {oldest}", f"ONNX Runtime; opset {opset}")


def _costs(report: Mapping[str, Any]) -> Iterator[Cost]:
    """Yield what was measured of both models."""

    def cost(name: str, before: float, after: float, show: Callable[[Any], str]) -> Cost:
        return Cost(name, show(before), show(after), before / after if after else None)

    yield cost("file", report["input"]["bytes"], report["output"]["bytes"], format_bytes)
    if latency := _latency(report):
        for key, name in (("min_ms", "a run, least"), ("median_ms", "a run, median")):
            yield cost(name, latency[0][key], latency[1][key], _ms)
    if memory := report.get("memory"):
        yield cost("peak memory to load it", memory["peak_bytes_before"], memory["peak_bytes"], format_bytes)
        yield cost("time to load it", memory["seconds_before"], memory["seconds"], lambda seconds: f"{seconds:.2f} s")


def _latency(report: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
    latency = (report.get("verification") or {}).get("latency") or {}
    pair = [latency.get("reference"), latency.get("compressed")]
    return [each for each in pair if each] if all(pair) else []


def _codes(report: Mapping[str, Any]) -> str:
    """Return the codes in words."""
    options = report["options"]
    chosen = set((report.get("bits_chosen") or options.get("bits_for") or {}).values()) or {options["bits"]}
    bits = f"{min(chosen)}-bit" if len(chosen) == 1 else f"{min(chosen)}- to {max(chosen)}-bit"
    block = f"blocks of {options['block_size']}" if options["block_size"] else "a scale a column"
    return f"preset {report['preset']}: {bits} codes, {block}, {options['lowering']}"


def _search(search: Mapping[str, Any]) -> str:
    met = "" if search["met"] else " The goal was not reached."
    return (
        f"{search['weights_measured']} of {len(search['weights'])} weights were measured one by one in"
        f" {search['seconds']:.0f} s. Expected of the file: {search['expected_error']:.3g}; measured:"
        f" {search['measured_error']:.3g}.{met}"
    )


def _pass(entry: Mapping[str, Any]) -> PassRow:
    reasons = Counter(skipped["reason"] for skipped in entry["skipped"])
    shown = reasons.most_common(MOST_REASONS)
    left = len(entry["skipped"]) or entry.get("left", 0)
    return PassRow(entry["name"], entry["replaced"], left, shown, len(reasons) - len(shown))


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for what in ("input", "output"):
        yield what, report[what]["path"]
        yield f"SHA-256 of the {what}", report[what]["sha256"]
    options = {key: value for key, value in report["options"].items() if key != "bits_for"}
    yield "options", json.dumps(options, ensure_ascii=False)


def _share(left: Sequence[WeightSize], whole: int) -> str:
    total = sum(weight.after for weight in left)
    return f"{format_bytes(total)}, {_percent(total / whole)} of the file" if left else ""


def _percent(part: float) -> str:
    """Return a part of a whole in words: a little is not nothing."""
    return f"{part:.1%}" if part >= 0.001 or not part else "less than 0.1%"


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """Return the shapes of a feed in words, those of many caches as one."""
    caches = [name for name, shape in shapes.items() if CACHE.search(name) and len(shape) >= CACHE_RANK]
    caches = caches if len(caches) > 1 else []
    said = [f"{name} {list(shape)}" for name, shape in shapes.items() if name not in caches]
    return ", ".join(said + ([f"{len(caches)} caches {list(shapes[caches[0]])}"] if caches else []))


def _times(ratio: float) -> str:
    return f"{ratio:.2f}\N{MULTIPLICATION SIGN}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds >= 1 else f"{milliseconds:.3f} ms"

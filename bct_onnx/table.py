"""The report as tables for people."""

from __future__ import annotations

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .compression.coverage import Coverage
from .report import Report
from .search import SearchRecord
from .targets import DEFAULT_TARGET

# Most reasons shown a pass; the JSON report has one for every node.
MOST_REASONS = 3
# Weights in float that are shown.
MOST_FLOATS = 8


def render(report: Report) -> Group:
    """Return the tables of a report: files, passes, verification."""
    parts: list[Table] = [_summary(report), _passes(report)]
    if report.large_floats:
        parts.append(_floats(report))
    if report.search:
        parts.append(_search(report.search))
    if report.coverage:
        parts += [_coverage(report.coverage), _left(report.coverage)]
    if report.verification:
        parts.append(_verification(report))
    return Group(*parts, *(Text(f"note: {note}", style="yellow") for note in report.notes))


def format_bytes(count: int) -> str:
    """Return a number of bytes for reading, in units of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"


def format_change(before: int, after: int) -> str:
    """Return numbers of bytes before and after for reading."""
    return f"{format_bytes(before)} to {format_bytes(after)}"


def _summary(report: Report) -> Table:
    table = Table(show_header=False, box=None)
    options, target = report.options, escape(str(report.output.path))
    block = f"blocks of {options.block_size}" if options.block_size else "whole columns"
    table.add_row("input", f"{escape(str(report.input.path))}  {format_bytes(report.input.bytes)}")
    table.add_row("output", f"{target}  {format_bytes(report.output.bytes)}  [bold]{report.ratio:.2f}x smaller[/]")
    widths = sorted(set(report.search.choice.bits.values())) if report.search else [options.bits]
    bits = f"{widths[0]}-bit" if len(widths) == 1 else f"{widths[0]}- to {widths[-1]}-bit"
    table.add_row("preset", f"{report.preset}: {bits} codes, {block}, {options.lowering}")
    asked = f", made for {report.runtime}" if report.runtime else ""
    where = f", for {report.target}" if report.target != DEFAULT_TARGET else ""
    needs = f"ONNX Runtime {report.output.min_onnxruntime} or newer (opset {report.output.opset}){asked}{where}"
    table.add_row("needs", needs)
    return table


def _search(search: SearchRecord) -> Table:
    weights = search.curve.weights
    table = Table(
        title="Bits chosen by measurement",
        caption=f"error of the outputs: {search.choice.error:.3g} expected from the weights,"
        f" {search.error:.3g} measured; {search.measured} of {len(weights)} weights measured in {search.seconds:.0f} s",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("bits", "weights", "size"):
        table.add_column(column, justify="right")
    table.add_column("the largest of them", overflow="fold")
    for bits in sorted(set(search.choice.bits.values()), reverse=True):
        chosen = [weight for weight in weights if search.choice.bits[weight.name] == bits]
        names = [weight.name for weight in sorted(chosen, key=lambda weight: -weight.bytes[bits])[:MOST_REASONS]]
        total = sum(weight.bytes[bits] for weight in chosen)
        table.add_row(str(bits), str(len(chosen)), format_bytes(total), Text("\n".join(names)))
    return table


def _passes(report: Report) -> Table:
    table = Table(title="Passes", title_justify="left")
    table.add_column("pass")
    for column in ("replaced", "left", "before", "after", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("why left", overflow="fold")
    for entry in report.passes:
        if not entry.replaced and not entry.skipped:
            continue
        reasons = list(dict.fromkeys(skipped.reason for skipped in entry.skipped))
        more = [f"and {len(reasons) - MOST_REASONS} more reasons"] if len(reasons) > MOST_REASONS else []
        table.add_row(
            entry.name,
            str(entry.replaced),
            str(len(entry.skipped)),
            format_bytes(entry.bytes_before),
            format_bytes(entry.bytes_after),
            f"{entry.bytes_before / entry.bytes_after:.2f}" if entry.bytes_after else "",
            Text("\n".join(reasons[:MOST_REASONS] + more)),
        )
    return table


def _floats(report: Report) -> Table:
    """Return the table of the float weights that matter to the size of the file."""
    total = sum(weight.bytes for weight in report.left)
    table = Table(title=f"Left in float: {_share(total, report.output.bytes)} of the file", title_justify="left")
    table.add_column("weight", overflow="fold")
    table.add_column("size", justify="right")
    for column in ("read by", "why"):
        table.add_column(column, overflow="fold")
    large = report.large_floats
    for weight in large[:MOST_FLOATS]:
        table.add_row(Text(weight.name), format_bytes(weight.bytes), Text(weight.op), Text(weight.reason))
    if len(large) > MOST_FLOATS:
        rest = large[MOST_FLOATS:]
        table.add_row(f"and {len(rest)} more", format_bytes(sum(weight.bytes for weight in rest)))
    return table


def _coverage(coverage: Coverage) -> Table:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in coverage.shapes.items())
    weights = _share(coverage.weight_codes, coverage.weight_bytes), _share(coverage.weight_half, coverage.weight_bytes)
    table = Table(
        title=f"Coverage: weights {weights[0]} as codes, {weights[1]} as float16;"
        f" intermediate results {_share(coverage.result_codes, coverage.result_bytes)} as codes",
        caption=f"bytes over {coverage.tokens} tokens ({shapes})" if shapes else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("operator")
    for column in ("nodes", "from codes", "between codes", "moves codes", "left", "bytes/token", "as codes"):
        table.add_column(column, justify="right")
    for row in coverage.operators:
        counts = (row.nodes, row.replaced, row.between, row.moves, row.left)
        table.add_row(row.op, *(str(n or "") for n in counts), f"{row.bytes:,.0f}", _share(row.covered, row.bytes))
    return table


def _left(coverage: Coverage) -> Table:
    table = Table(show_header=False, box=None)
    for node in coverage.left:
        table.add_row("left", f"{node.op} {node.node}", Text(node.reason))
    for edge in coverage.results_left:
        table.add_row("float", f"{edge.op} {edge.tensor}", Text(edge.reason))
    return table


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _verification(report: Report) -> Table:
    verification = report.verification
    assert verification is not None
    caption = None
    if verification.reference_latency and verification.latency:
        before, after = verification.reference_latency.min_ms, verification.latency.min_ms
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in verification.timed_shapes.items())
        caption = f"{before:.1f} ms before, {after:.1f} ms after: {before / after:.2f}x as fast ({shapes})"
    table = Table(
        title=f"Verified on {len(verification.feeds)} feeds in ONNX Runtime",
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("output")
    for column in ("error", "means", "same decisions", "largest difference"):
        table.add_column(column, justify="right")
    table.add_column("worst on", overflow="fold")
    for name, error in verification.outputs.items():
        means = f"perplexity +{error.perplexity:.1%}" if error.perplexity is not None else error.kind
        same = error.decisions if error.decisions is not None else error.same
        table.add_row(
            escape(name),
            "" if error.error is None else f"{error.error:.3g}",
            means,
            "" if same is None else f"{same:.1%}",
            "" if error.max_abs is None else f"{error.max_abs:.3g}",
            Text("" if error.worst is None else verification.feeds[error.worst]),
        )
    return table


def show(report: Report) -> None:
    """Print a report."""
    Console().print(render(report))

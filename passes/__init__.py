"""Graph in, graph out: each pass rewrites one kind of node with a format and a lowering."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx_graphsurgeon as gs

from . import (
    absorb,
    attention,
    biases,
    constant,
    even_channels,
    experts,
    fold,
    fuse_gelu,
    gather,
    intermediates,
    matmul,
    open_attention,
    quantized_weights,
    relu_squared,
    sizes,
    sparse,
    tied,
    unfuse,
    unread_rows,
)
from .activation_matmul import rewrite as activation_matmul
from .base import Match, Pass
from .check import check_graph, check_unchanged, fingerprint, refusal
from .context import ChannelRange, Coder, Context, plain_codes
from .gelu import rewrite as gelu
from .graph.calls import compose_calls
from .graph.constants import resolve
from .graph.editor import Editor, Move
from .graph.endings import compose_endings
from .graph.features import FIRST_OPSET, NOTHING, Feature, Lacks
from .graph.follow import find_shapes
from .graph.joined_matmuls import compose_joined_matmuls
from .graph.normalizations import compose_normalizations
from .graph.product_rows import compose_product_rows
from .graph.split_attentions import compose_split_attentions
from .graph.tidy import lift_constant_nodes, merge_equal, name_constants, shorten_names
from .graph.turns import take_turns
from .graph.walk import walk
from .layer_normalization import rewrite as layer_normalization
from .left import LeftInFloat, left_in_float
from .lowerings.base import Lowering
from .lowerings.table import LOWERINGS, make_lowering
from .options import DEFAULT_OPERATORS, Options
from .report import PassReport, Skip, SkippedNode
from .softmax import rewrite as softmax

__all__ = [
    "CHAIN",
    "DEFAULT_OPERATORS",
    "FIRST_OPSET",
    "LOWERINGS",
    "NOTHING",
    "ChannelRange",
    "Coder",
    "Feature",
    "Lacks",
    "LeftInFloat",
    "Options",
    "PassReport",
    "Progress",
    "beyond_opset",
    "chain",
    "describe",
    "left_in_float",
    "make_lowering",
    "make_plain",
    "pass_name",
    "plain_codes",
    "preferred_opsets",
    "required_opset",
    "run",
]

# What brings a graph to the plain form in which the others look at it.
PLAIN: tuple[Pass, ...] = (
    sparse,  # first: a constant is dense
    fold,  # and a weight is a constant
    unfuse,
)
# The chain, in order; `Options.operators` chooses of it by name.
CHAIN: tuple[Pass, ...] = (
    *PLAIN,
    tied,  # before all that stores weights: what is stored once must be one constant
    gather,  # before the multiplications, which transpose a table that is there, not the other way round
    open_attention,  # before the passes that compute its products and its Softmax
    attention,  # before the multiplications, whose shapes it needs as the model has them
    even_channels,  # before biases: what it takes from channels makes biases of keys and values, which cost nothing
    biases,  # behind attention, whose keys need none, before the multiplications, which take what is left
    absorb,  # behind biases, which move into normalizations what is then absorbed
    unread_rows,  # behind absorb, which has to see all that reads a normalization
    fuse_gelu,  # behind absorb, which takes away what the session knows a Gelu by
    quantized_weights,  # before the pass for products of activations, which such weights look like
    matmul,
    experts,
    activation_matmul,
    softmax,
    gelu,  # behind the multiplications, which quantize what they see a Gelu compute with a finer scale
    relu_squared,  # behind the multiplications, for the same reason
    layer_normalization,  # before the pass for constants, which would take scales and biases
    intermediates,  # behind all operators: what they read as codes needs no others
    sizes,  # behind all that knows forms by the shapes that they compute
    constant,  # last: what is left
)

Progress = Callable[[str, int, int], None]
NO_OPS: frozenset[str] = frozenset()


def run(
    graph: gs.Graph,
    options: Options,
    progress: Progress | None = None,
    move: Move = lambda array: array,
    coder: Coder = plain_codes,
    lowering: Lowering | None = None,
    ranges: Mapping[str, ChannelRange] | None = None,
    checked: bool = False,
) -> list[PassReport]:
    """Rewrite `graph` in place and return a report per pass.

    `progress(pass name, done, total)` is called before every replacement. `move` gets every new constant and returns
    an equal array, of less memory perhaps, that takes its place. `coder` makes the codes of the weights that `lowering`
    stores, the one that the options name unless another is given. `ranges` tells what channels hold, by name of the
    activation. The graph's opset must reach `required_opset(options)`. Raises ValueError where the options name a
    pass that does not exist and, with `checked`, BrokenContractError where a pass does what none may (see `check`).
    """
    modules, context = chain(options), _begin(graph, options, move)
    context.coder, context.lowering = coder, lowering or context.lowering
    context.ranges, context.checked = ranges or {}, checked
    reports = _run_plain(graph, context, progress)
    reports += _run_stage([module for module in modules if module not in PLAIN], graph, context, progress)
    for module in modules:
        _offered(module, "finish", _nothing)(graph, context, reports)
    valid = checked and refusal(graph) is None
    compose_calls(graph)
    compose_split_attentions(graph)
    compose_endings(graph)
    compose_normalizations(graph)
    compose_product_rows(graph)
    compose_joined_matmuls(graph)
    take_turns(graph, context.editor)
    context.editor.finish()  # where no pass ran, too, nothing is left of nodes that became constants
    shorten_names(graph)
    if valid:
        check_graph(graph, "compose_joined_matmuls")
    return reports


def make_plain(graph: gs.Graph, options: Options) -> None:
    """Bring `graph` to the form in which the passes for weights and operators find it, in place."""
    context = _begin(graph, options)
    _run_plain(graph, context, None)
    context.editor.flush()


def preferred_opsets(options: Options, operators: Iterable[str]) -> list[int]:
    """Return the opsets with which a graph of these operators is fast, the fastest first."""
    found = set(operators)
    useful = [_offered(each, "BEST_OPSET", 1) for each in chain(options) if found & _offered(each, "BEST_FOR", NO_OPS)]
    least = max(options.form.best_opset, required_opset(options))
    return sorted({least, *(max(least, opset) for opset in useful)}, reverse=True)


def required_opset(options: Options) -> int:
    """Return the lowest opset that the request's weights and passes need."""
    form = options.form
    weights = [form.opset(bits) for bits in {options.bits, *options.bits_for.values()}]
    tables = [form.table_opset(options.table_bits)] if options.table_bits else []
    passes: list[int] = [_offered(each, "OPSET", 1) for each in chain(options)]
    return max([*weights, *tables, *passes])


def beyond_opset(options: Options, opset: int) -> frozenset[str]:
    """Return the names of the passes of a request whose operators are newer than an opset."""
    return frozenset(pass_name(each) for each in chain(options) if opset < _offered(each, "OPSET", 1))


def chain(options: Options) -> list[Pass]:
    """Return the passes that a request runs, in order; raises ValueError for a name that is no pass."""
    names = [pass_name(module) for module in CHAIN]
    unknown = sorted(options.operators.difference(names))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not an operator that can be chosen; choose of {', '.join(names)}")
    return [module for module in CHAIN if pass_name(module) in options.operators]


def pass_name(module: Pass) -> str:
    """Return the name by which options and reports speak of a pass."""
    return module.__name__.split(".")[1]


def describe(module: Pass) -> str:
    """Return what a pass is for: the first line of its module."""
    return (module.__doc__ or "").partition("\n")[0]


def _offered(module: Pass, name: str, otherwise: Any) -> Any:
    """Return what a pass offers besides `match` and `replace`, as `base.Pass` lists it."""
    return getattr(module, name, otherwise)


def _nothing(*_: Any) -> None:
    """Do nothing."""


def _alone(matches: list[Match]) -> list[list[Match]]:
    """Return each match in a group of its own."""
    return [[match] for match in matches]


def _begin(graph: gs.Graph, options: Options, move: Move = lambda array: array) -> Context:
    """Return the context of a run over a graph, whose constants are constants and whose equal nodes are one."""
    lift_constant_nodes(graph)
    merge_equal(graph)
    name_constants(graph)
    editor = Editor(graph, move, options.workers, options.lacks)
    return Context(editor, options, options.form, PassReport(""))


def _run_plain(graph: gs.Graph, context: Context, progress: Progress | None) -> list[PassReport]:
    """Run what brings a graph to its plain form; what was written of several nodes alike is then one again."""
    reports = _run_stage([module for module in chain(context.options) if module in PLAIN], graph, context, progress)
    if any(report.replaced for report in reports):
        merge_equal(graph)
        find_shapes(graph, context.shapes)  # what was folded tells more of them
    return reports


def _run_stage(
    modules: Iterable[Pass], graph: gs.Graph, context: Context, progress: Progress | None
) -> list[PassReport]:
    """Run passes one after the other, which all look at the graph before the first changes it."""
    modules = list(modules)
    for module in modules:
        _offered(module, "prepare", _nothing)(graph, context)
    return [_run_pass(module, graph, context, progress) for module in modules]


def _run_pass(module: Pass, graph: gs.Graph, context: Context, progress: Progress | None) -> PassReport:
    report = context.report = PassReport(pass_name(module), getattr(module, "COMPUTES", False))
    before = (fingerprint(context), refusal(graph)) if context.checked else None
    matches: list[Match] = []
    skips: list[SkippedNode] = []
    for scope, node in walk(graph):
        found = module.match(scope, node, context)
        if found is not None:
            found = context.kept(node) or found
        if isinstance(found, Skip):
            skips.append(_skipped(node, found))
        elif found is not None:
            matches.append(found)
    if before:
        check_unchanged(before[0], context)
    report.skipped += skips
    groups = _offered(module, "groups", _alone)(matches)
    for done, group in enumerate(groups):
        if progress:
            progress(report.name, done, len(groups))
        skip = module.replace(context, group)
        if skip is None:
            report.replaced += len(group)
        else:
            report.skipped += [_skipped(match.node, skip) for match in group]
    context.editor.flush()
    report.avoided, context.editor.avoided = context.editor.avoided, set()
    if before and not before[1]:
        check_graph(graph, report.name)
    return report


def _skipped(node: gs.Node, skip: Skip) -> SkippedNode:
    views = map(resolve, (tensor for tensor in node.inputs if tensor.name))
    return SkippedNode(node.name or node.op, skip.reason, tuple(view.source.name for view in views if view is not None))

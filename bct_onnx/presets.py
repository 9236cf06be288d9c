"""Named sets of options, and the request that becomes of one with a user's changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx

from passes import (
    CHAIN,
    DEFAULT_OPERATORS,
    LOWERINGS,
    Feature,
    Options,
    beyond_opset,
    make_lowering,
    pass_name,
)
from passes.graph.phases import CACHE_INPUT, CACHE_RANK
from passes.lowerings.base import Lowering
from passes.lowerings.operators import OPSET_BITWISE

from .errors import BctError
from .files.order import nodes_of
from .runtimes import Limits, first_release, limits_of
from .targets import DEFAULT_TARGET, STANDARD, TARGETS, Target

# Codes of one width, block and lowering. A preset's dense gives way to both for models that decode token by token, and
# to packed above this width: int8 with 8 bits is as fast for a token and several times as fast for a prompt, but its
# activations have one scale a row, not one a block. SmolLM2-135M, 8 stories: perplexity +5.0 % instead of +1.6 %.
WIDEST_BOTH = 4
PRESETS = {
    "fast": Options(bits=8, block_size=0, lowering="dense"),
    "balanced": Options(bits=6, block_size=8, lowering="dense"),
    "small": Options(bits=4, block_size=8, lowering="dense"),
    "portable": Options(bits=8, block_size=32, lowering="qdq"),
    # As published: every weight, operator and intermediate result in blocks with shifts. Attention as one node would
    # compute in floats.
    "paper": Options(
        bits=8,
        block_size=16,
        lowering="shifts",
        operators=frozenset(map(pass_name, CHAIN)) - {"attention"},
        scales="shift",
    ),
}
DEFAULT_PRESET = "balanced"
# Block size where a preset's small blocks, one bit of exponent each, give way to blocks with whole scales.
SCALED_BLOCK = 32
# Bits that a table of which rows are looked up has more than weights of few bits in forms for decoding by token: its
# errors count twice, in the lookups and in the output product, and nothing makes up for them (docs/decoders.md).
MORE_TABLE_BITS = 1
# Width of the only codes that standard operators have at every opset.
STANDARD_BITS = 8
# What a preset promises: the domains of all operators in what it writes.
DOMAINS = {"portable": STANDARD}
# Rows of a weight that no block size is too large for.
WIDE = 256


@dataclass(frozen=True)
class Request:
    """Options as asked for, before the model is known.

    Attributes:
        preset: name of the preset.
        bits, block_size: changes to the preset, or None.
        lowering: auto (the preset's own choice, or that for decoding by token), or one of LOWERINGS.
        keep: regular expressions of nodes and weights to leave alone.
        operators: names of passes that run besides those for weights, instead of the preset's; names with a minus are
            left out of the preset's; None for the preset's.
        activations: code type of intermediate results instead of the preset's, or None.
        runtime: oldest release of ONNX Runtime that must run the model, or None for the target's.
        target: name of the target: where the model runs.
        inline: whether calls of functions are replaced by what they do, as they always are where standard operators are
            promised.
        searched: whether the bits of every weight are chosen by measurement: options say what to start from.
    """

    preset: str = DEFAULT_PRESET
    bits: int | None = None
    block_size: int | None = None
    lowering: str = "auto"
    keep: tuple[str, ...] = ()
    operators: tuple[str, ...] | None = None
    activations: str | None = None
    runtime: str | None = None
    target: str = DEFAULT_TARGET
    inline: bool = False
    searched: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be refused without a model, with BctError."""
        if self.preset not in PRESETS:
            raise BctError(f"preset {self.preset!r} does not exist; choose one of {', '.join(PRESETS)}")
        if self.lowering != "auto" and self.lowering not in LOWERINGS:
            raise BctError(f"lowering {self.lowering!r} does not exist; choose auto or one of {', '.join(LOWERINGS)}")
        if self.target not in TARGETS:
            raise BctError(f"target {self.target!r} does not exist; choose one of {', '.join(TARGETS)}")
        if self.preset not in self._target.presets:
            raise BctError(
                f"preset {self.preset!r} has no form for target {self.target!r};"
                f" choose one of {', '.join(name for name in PRESETS if name in self._target.presets)}"
            )
        if self.lowering not in ("auto", self._target.lowering) and self._target.lowering:
            raise BctError(f"target {self.target!r} takes {self._target.lowering} weights; leave out --lowering, or it")
        options = self._options(self._lowering() if self.lowering == "auto" else self.lowering)
        if self._is_cut(options):
            raise BctError(
                f"{Feature.NBITS_8} runs from ONNX Runtime {first_release(Feature.NBITS_8)}, not in"
                f" {self.limits.release}: use --bits 4, or another preset or lowering"
            )

    @cached_property
    def limits(self) -> Limits:
        """What the model may be made of."""
        return limits_of(self._target.runtime if self.runtime is None else self.runtime)

    @property
    def domains(self) -> frozenset[str] | None:
        """The only domains that operators may have, or None for any."""
        return DOMAINS.get(self.preset) or self._target.domains

    def options(self, model: onnx.ModelProto) -> tuple[Options, list[str]]:
        """Return the options for a model, and a sentence for each that differs from what was asked for."""
        lowering, notes = self.lowering, []
        if lowering == "auto":
            lowering = self._lowering()
            if make_lowering(lowering).decoded_at_load and decodes_by_token(model):
                lowering, note = self._by_token()
                notes.append(note)
        asked = self._options(lowering)
        options = self.options_for(lowering, asked.bits)
        if options.bits != asked.bits and not self.searched:
            notes.append(f"{lowering} has no {asked.bits}-bit codes: {options.bits} bits are used")
        return options, notes

    def options_for(self, lowering: str, bits: int) -> Options:
        """Return the options for a lowering, with the width that it has for a request of so many bits."""
        options = self._options(lowering, bits)
        nearest = options.form.format(bits, options.block_size, WIDE).bits
        return options if nearest == bits else self._options(lowering, nearest)

    def options_at(self, opset: int, asked: Options) -> tuple[Options, str]:
        """Return what comes closest to options at an opset that is too low, and a sentence on what that leaves out.

        Standard operators stay standard operators: these have 8-bit codes at every opset. Else weights are packed, or
        whole bytes where the runtime cannot pack so many bits.
        """
        lowering = asked.lowering if asked.form.standard_only else "packed"
        if self._is_cut(self._options(lowering, asked.bits)):
            lowering = "dense"
        fits = make_lowering(lowering).opset(asked.bits) <= opset
        options = self.options_for(lowering, asked.bits if fits else STANDARD_BITS)
        newer = beyond_opset(options, opset)
        without = f", without {', '.join(sorted(newer))}" if newer else ""
        note = f"opset {opset} has no place for these codes: {options.bits}-bit {lowering} weights instead{without}"
        return replace(options, operators=options.operators - newer), note

    @property
    def _target(self) -> Target:
        return TARGETS[self.target]

    def _lowering(self) -> str:
        return self._target.lowering or PRESETS[self.preset].lowering

    def _by_token(self) -> tuple[str, str]:
        """Return the lowering of a model that decodes token by token, in place of dense, and a sentence on it."""
        lowering = self._target.by_token
        if make_lowering(lowering).decoded_at_load:
            return (
                lowering,
                f"the model decodes token by token: target {self.target!r} multiplies {lowering} weights all the same",
            )
        if self._options(PRESETS[self.preset].lowering).bits <= WIDEST_BOTH:
            why = "int8 for prompts and packed for tokens, 1.6 bytes a weight in memory; packed alone takes 0.6"
            return lowering, f"the model decodes token by token: its weights are {lowering}, {why} (see --lowering)"
        if self._is_cut(self._options("packed")):
            first = first_release(Feature.NBITS_8)
            why = f"{Feature.NBITS_8} runs from ONNX Runtime {first}, not in {self.limits.release}"
            return "dense", f"{why}: weights are dense, whose answers to prompts are less near"
        why = "whose answers are the nearest; dense ones take as long a token and a fraction as long a prompt"
        return "packed", f"the model decodes token by token: its weights are packed, {why} (see --lowering)"

    def _is_cut(self, options: Options) -> bool:
        """Tell whether the runtime lacks codes as wide as others have for what is asked."""
        runtimes = (options.form, make_lowering(options.lowering))
        here, elsewhere = (form.format(options.bits, options.block_size, WIDE).bits for form in runtimes)
        return here < min(elsewhere, options.bits)

    def _options(self, lowering: str, bits: int | None = None) -> Options:
        preset, form = PRESETS[self.preset], make_lowering(lowering)
        block_size = preset.block_size
        like = form.decoded_at_load and preset.form.decoded_at_load
        # In the kernels of packed codes activations have a scale a block, too: a huge channel spoils only its block.
        # SmolLM2-135M at 8 bits, WikiText-2: perplexity +0.7 % in blocks of 32 instead of +1.9 % in those of 128.
        if lowering != preset.lowering and not like and (block_size or form.block_sizes):
            block_size = max(block_size, SCALED_BLOCK)
        operators = _operators(preset.operators, self.operators)
        if form.standard_only:
            # Attention asks for an opset that other runtimes hardly have.
            operators -= {"attention"}
        width = bits or (preset.bits if self.bits is None else self.bits)
        if self.searched and form.decoded_at_load:
            start = PRESETS[DEFAULT_PRESET]
            width, block_size = min(width, start.bits), block_size or start.block_size
            # At the two or three bits that a search may choose, a bias inside a weight is lost in its steps.
            operators -= {"absorb"}
        try:
            return replace(
                preset,
                bits=width,
                block_size=block_size if self.block_size is None else self.block_size,
                lowering=lowering,
                keep=self.keep,
                operators=operators,
                activations=self.activations or preset.activations,
                lacks=self.limits.lacks,
                table_bits=_table_bits(form, width),
                inline=self.inline or self.domains is not None,
            )
        except ValueError as error:
            raise BctError(str(error)) from error


def _table_bits(form: Lowering, bits: int) -> int | None:
    """Return the width of tables beside weights of few bits in forms for decoding by token, or None for the same."""
    if bits > WIDEST_BOTH or form.decoded_at_load:
        return None
    more = bits + MORE_TABLE_BITS
    return more if form.table_format(more, SCALED_BLOCK, WIDE, OPSET_BITWISE).bits == more else None


def _operators(preset: frozenset[str], names: Sequence[str] | None) -> frozenset[str]:
    """Return the passes that run; raises BctError for what is no pass, and for names with and without a minus."""
    left_out = [name[1:] for name in names or () if name.startswith("-")]
    chosen = left_out or names or ()
    known = list(map(pass_name, CHAIN))
    unknown = next((name for name in chosen if name not in known), None)
    if unknown is not None:
        raise BctError(f"operator {unknown!r} does not exist; choose of {', '.join(known)}")
    if left_out:
        if names is not None and len(left_out) < len(names):
            raise BctError("choose operators, or leave some out, each with a minus; not both")
        return preset.difference(left_out)
    return preset if names is None else DEFAULT_OPERATORS.union(names)


def check_promise(request: Request, written: onnx.ModelProto, source: Path) -> None:
    """Raise BctError where a written model has an operator that its preset or target promises to do without."""
    promised, domains = DOMAINS.get(request.preset), request.domains
    said, other = (f"preset {request.preset!r}", "preset") if promised else (f"target {request.target!r}", "target")
    foreign = next((node for node in nodes_of(written.graph) if domains and node.domain not in domains), None)
    if foreign is not None:
        raise BctError(
            f"{source}: {said} writes standard operators only, but {foreign.name or foreign.output[0]!r}"
            f" is a {foreign.domain}.{foreign.op_type}: use another {other}, or export the model without it"
        )


def decodes_by_token(model: onnx.ModelProto) -> bool:
    """Tell whether a model takes a cache of earlier tokens as input."""
    return any(
        CACHE_INPUT.search(value.name) and len(value.type.tensor_type.shape.dim) >= CACHE_RANK
        for value in model.graph.input
    )

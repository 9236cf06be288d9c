"""Which weights a refusal is due to, by measurement: those that, kept in float, mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bct_onnx import files, search
from bct_onnx.compression.workspace import EXACT_BITS, Result, Workspace
from bct_onnx.errors import InaccurateError, VerificationError
from passes import Options
from passes.report import TOGETHER, TensorReport

# Weights that are named at most: a fault of more is none of theirs.
MOST_BLAMED = 4
# Weights to blame are looked for where that takes no more than so many bytes of models, and kept in float by
# themselves where they are at most this part of the model.
MOST_BLAME_BYTES, LARGEST_MENDED = 4 << 30, 0.1
_ADVICE = "keep more bits (--preset fast), verify on real inputs (--feeds), or relax the bound (--max-rel-error)"


def harmful_weights(
    workspace: Workspace, model: files.ModelFile, options: Options, result: Result, error: InaccurateError
) -> list[str]:
    """Return a few small weights that, kept in float, let a refused result meet its bound.

    Raises the error with what is known, and what to do, where none do or they are large.
    """
    tensors = [tensor for report in result.passes for tensor in report.tensors if tensor.bytes_after]
    sizes = candidates(tensors)
    if workspace.max_error == 0 or model.bytes * len(sizes).bit_length() > MOST_BLAME_BYTES:
        raise InaccurateError(f"{error}; {_ADVICE}") from error
    bound, coder = workspace.bound(result), search.memoized(workspace.coder(model, options))
    # What a search would choose for is not known yet: the most bits there are.
    plain = replace(options, bits=EXACT_BITS if workspace.goal else options.bits, bits_for={})

    def mends(names: Sequence[str]) -> bool:
        workspace.progress("finding the weights to blame", 0, 0)
        try:
            found = workspace.write(model, keep_weights(plain, names), [], coder).verification
        except VerificationError:
            return False
        return found is not None and found.meets(bound)

    found = find_culprits(list(sizes), mends)
    if not found:
        raise InaccurateError(f"{error}; no few weights are to blame: {_ADVICE}") from error
    size, names = sum(sizes[name] for name in found), ", ".join(found)
    if size > LARGEST_MENDED * model.bytes:
        asked = " ".join(f"--keep '{_pattern(name)}'" for name in found)
        raise InaccurateError(f"{error}; {names} in float ({size:,} bytes) mend it: {asked}") from error
    return found


def keep_weights(options: Options, names: Iterable[str]) -> Options:
    """Return the options with just the weights of these names left alone, too."""
    return replace(options, keep=(*options.keep, *map(_pattern, names)))


def _pattern(name: str) -> str:
    return f"^{re.escape(name)}$"


def candidates(tensors: Iterable[TensorReport]) -> dict[str, int]:
    """Return the bytes that each coded constant takes in float, by the name it has in the input, smallest first."""
    bytes_of: dict[str, int] = {}
    for tensor in tensors:
        parts = tensor.name.split(TOGETHER)
        for part in parts:
            bytes_of[part] = bytes_of.get(part, 0) + tensor.bytes_before // len(parts)
    return dict(sorted(bytes_of.items(), key=lambda item: (item[1], item[0])))


def find_culprits(names: Sequence[str], mends: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return a few names of which `mends` is true, found in about log2(len(names)) calls each; none where it is not.

    `mends` tells whether all is well with the named weights in float. The shortest beginning of the names that mends
    ends with one that is needed; with it, a shorter one may do.
    """
    found: list[str] = []
    rest = list(names)
    if not mends(rest):
        return []
    while len(found) < MOST_BLAMED:
        low, high = 0, len(rest)
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if mends([*found, *rest[:middle]]) else (middle, high)
        found.append(rest[high - 1])
        rest = rest[: high - 1]
        if not rest or mends(found):
            return found
    return []

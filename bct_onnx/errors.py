"""The exceptions that end a run with one line and an exit code."""

from typing import ClassVar


class BctError(Exception):
    """A bad request or a bad input: the message names the file, the node and what to do (exit code 2)."""

    exit_code: ClassVar[int] = 2


class VerificationError(BctError):
    """The compressed model does not answer like the input model; nothing was written (exit code 1)."""

    exit_code: ClassVar[int] = 1


class InaccurateError(VerificationError):
    """The compressed model runs, but its answers are too far from the input model's."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

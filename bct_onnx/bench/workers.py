"""Processes of their own, one a candidate, that do their work when they are told to: one at a time, in turns."""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Any

from bct_onnx.errors import BctError, first_line
from bct_onnx.sessions import peak_bytes, resident_bytes

# Seconds that a worker has to end by itself.
PATIENCE = 10.0


@dataclass(frozen=True)
class Made:
    """What making an object took: seconds, and bytes of memory beyond those of the process before, at the peak."""

    seconds: float
    peak_bytes: int


class Worker:
    """A new process with an object in it, whose methods are called from here."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Start the process and make the object there; BctError, one line, where that fails.

        `make` is called in the new process, so that it must be picklable.
        """
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.made: Made = self._answer()
        except BctError:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Return what a method returns there; BctError, one line, where it raises or the process ends."""
        self._connection.send((method, arguments))
        return self._answer()

    def held_bytes(self) -> int:
        """Return the resident memory beyond that of the process before the object was made."""
        return int(self.call(_HELD))

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        """Return the worker, which ends with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self.close()

    def _answer(self) -> Any:
        try:
            done, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            raise BctError(f"the process ended with code {self._process.exitcode}") from None
        if not done:
            raise BctError(answer)
        return answer


_HELD = ""


def _serve(connection: Connection, make: Callable[[], Any]) -> None:
    """Make the object, then call its methods until the other end is closed."""
    logging.disable()
    warnings.simplefilter("ignore")
    before, start = resident_bytes(), perf_counter()
    try:
        served = make()
    except Exception as error:
        connection.send((False, first_line(error)))
        return
    connection.send((True, Made(perf_counter() - start, peak_bytes() - before)))
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = resident_bytes() - before if method == _HELD else getattr(served, method)(*arguments)
        except Exception as error:
            connection.send((False, first_line(error)))
        else:
            connection.send((True, answer))

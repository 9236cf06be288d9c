"""Many models, from a list, a folder or a fleet file: each in a process of its own, resumed where that stopped."""

from .jobs import Job, jobs
from .run import Result, run, run_all

__all__ = ["Job", "Result", "jobs", "run", "run_all"]

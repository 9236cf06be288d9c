"""ONNX Runtime: sessions that are silent, with errors of one line; what they take, and what memory allows."""

from bct_onnx.sessions.cost import Cost, LoadCosts, load_costs, load_in_fresh_process
from bct_onnx.sessions.heap import give_back
from bct_onnx.sessions.load import NO_SPINNING, Options, OrtSession, open_session, peak_bytes, resident_bytes
from bct_onnx.sessions.memory import MemoryPlan, available_bytes, limit_memory, plan_memory
from bct_onnx.sessions.session import Latency, MemoryUse, OrtError, Session, TooLongError, essential_words

__all__ = [
    "NO_SPINNING",
    "Cost",
    "Latency",
    "LoadCosts",
    "MemoryPlan",
    "MemoryUse",
    "Options",
    "OrtError",
    "OrtSession",
    "Session",
    "TooLongError",
    "available_bytes",
    "essential_words",
    "give_back",
    "limit_memory",
    "load_costs",
    "load_in_fresh_process",
    "open_session",
    "peak_bytes",
    "plan_memory",
    "resident_bytes",
]

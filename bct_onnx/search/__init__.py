"""Bits chosen by measurement: what each weight's codes do to the answers, and the smallest file under a goal."""

from bct_onnx.search.goal import DEFAULT_DROP, DEFAULT_SECONDS, PRESET_GOALS, Goal
from bct_onnx.search.grams import Grams, compensating_coder, product_inputs
from bct_onnx.search.memoize import memoized
from bct_onnx.search.ranges import channel_ranges, normalized_inputs
from bct_onnx.search.record import SearchRecord, plot
from bct_onnx.search.sensitivity import measure_sensitivity
from bct_onnx.search.tune import within_bytes, within_error

__all__ = [
    "DEFAULT_DROP",
    "DEFAULT_SECONDS",
    "PRESET_GOALS",
    "Goal",
    "Grams",
    "SearchRecord",
    "channel_ranges",
    "compensating_coder",
    "measure_sensitivity",
    "memoized",
    "normalized_inputs",
    "plot",
    "product_inputs",
    "within_bytes",
    "within_error",
]

"""Bits chosen by measurement: what each weight's codes do to the answers, and the smallest file under a goal."""

from bct_onnx.search.choice import Choice
from bct_onnx.search.decoded import decoded
from bct_onnx.search.goal import DEFAULT_DROP, DEFAULT_SECONDS, PRESET_GOALS, Goal
from bct_onnx.search.grams import Grams, compensating_coder, product_inputs
from bct_onnx.search.memoize import memoized
from bct_onnx.search.ranges import channel_ranges, normalized_inputs, ranges_of
from bct_onnx.search.record import SearchRecord, plot
from bct_onnx.search.sensitivity import Sensitivity, measure_sensitivity
from bct_onnx.search.stand_in import NoisyCodes, codes_of_size
from bct_onnx.search.tune import within_bytes, within_error

__all__ = [
    "DEFAULT_DROP",
    "DEFAULT_SECONDS",
    "PRESET_GOALS",
    "Choice",
    "Goal",
    "Grams",
    "NoisyCodes",
    "SearchRecord",
    "Sensitivity",
    "channel_ranges",
    "codes_of_size",
    "compensating_coder",
    "decoded",
    "measure_sensitivity",
    "memoized",
    "normalized_inputs",
    "plot",
    "product_inputs",
    "ranges_of",
    "within_bytes",
    "within_error",
]

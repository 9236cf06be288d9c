"""Inputs for a model: made from its signature and its own answers, or read from a file.

Who wants inputs takes an `InputSource`: `made_inputs` or `file_inputs`, or `samples.sample_inputs` for real data.
"""

from bct_onnx.inputs.answered import AnsweredInputs, InputSource, answer_all
from bct_onnx.inputs.feeds import InputPlan, candidate_plans, file_inputs
from bct_onnx.inputs.made import made_inputs, more_feeds, own_texts
from bct_onnx.inputs.roles import ModelInput, Role

__all__ = [
    "AnsweredInputs",
    "InputPlan",
    "InputSource",
    "ModelInput",
    "Role",
    "answer_all",
    "candidate_plans",
    "file_inputs",
    "made_inputs",
    "more_feeds",
    "own_texts",
]

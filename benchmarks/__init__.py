"""What the project's documented figures are made with; what anybody runs on a model of theirs is `bct_onnx bench`.

Programs that are run by their path, `run_*`, need no bct_onnx: they run on other releases and runtimes.
"""

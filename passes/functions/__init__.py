"""Compressed operators: ONNX functions whose bodies are stock operators, one file each.

A file holds the signature and the body as ONNX text, the numpy function that says exactly what is computed, and the
bound of its error. What only one operator becomes stands beside the pass that writes it (passes/softmax/function.py).
"""

"""Run the command line: `python -m bct_onnx IN.onnx OUT.onnx`."""

from .cli import main

if __name__ == "__main__":
    main()

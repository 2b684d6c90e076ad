"""Rewrites of ONNX graphs that change the operators and not the result; one file each, see `base.py`."""

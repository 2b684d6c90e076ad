"""Preflight: what a target and a chip will make of an ONNX graph, before anything is trained or built for minutes.

Three sources, each named in what is found: the target's own parser or compiler where it can be asked (`probe` of a target),
tables of what vendors document and of what was built (`support.yaml` beside each target), and shapes in the graph that are
known to break (`patterns.py`). What no source covers is `unverified`, never supported.
"""

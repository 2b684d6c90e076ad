"""Preflight: problems of an ONNX graph on a target and chip, before a training or a long build.

Three sources, each named in the finding: the target's parser or compiler where it can be asked (`probe` of a target),
tables of what vendors document and of what was built (`support.yaml` beside each target), and shapes in the graph that are
known to break (`patterns.py`). An operator that no source covers is `unverified`, never supported.
"""

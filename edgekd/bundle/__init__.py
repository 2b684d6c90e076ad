"""Collects an engine of a run and the proof that it works into one file, the bundle."""

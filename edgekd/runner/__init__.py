"""Runs a release on a board: frames in, results out. Portable: standard library + numpy, Python 3.8."""

from __future__ import annotations

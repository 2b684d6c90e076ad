"""Checks a bundle and makes it the current release of a board. Portable: standard library + numpy, Python 3.8."""

from __future__ import annotations

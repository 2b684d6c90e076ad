"""Readers of videos that this machine has."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edgekd.runner.video import IS_HERE


def reader_or_skip(name: str) -> str:
    """Return the name of a reader; skip where it, or its decoder of FFV1, is not installed."""
    if not IS_HERE[name]():
        pytest.skip(f"no {name} here")
    if name == "gstreamer":
        elements = ("uridecodebin", "videoconvert", "videoflip", "avdec_ffv1")
        inspect = shutil.which("gst-inspect-1.0") or "true"
        lacking = [one for one in elements if subprocess.run([inspect, "--exists", one]).returncode]
        if lacking:
            pytest.skip(f"GStreamer has no {', '.join(lacking)}: gstreamer1.0-plugins-good, gstreamer1.0-libav")
    return name

"""Bundles whose runner is a shell script: real archives for the installer, without a network in them.

`run --check` prints a word; `run --http PORT` serves that word, and 200 or 500 on `/health`.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.release.archive import pack
from edgekd.release.sums import SIGNATURE, SUMS, hashes_in, render_sums
from edgekd.runner.manifest import Manifest, Tolerance

_RUN = """#!/bin/sh
here=$(cd "${{0%/*}}" && pwd -P)
case $1 in
    --check) cat "$here/engine/word" && {check} ;;
    --http) cd "$here" && {serve} ;;
esac
"""
_SPEC = ModelSpec("semantic", ("a", "b"), 255, (TensorSpec("image", "uint8", (1, 3, 8, 8), "image"),),
                  (TensorSpec("logits", "float32", (1, 2, 8, 8), "logits"),), Preprocess((8, 8), dtype="uint8"))  # fmt: skip
_SERVE = 'exec "${EDGEKD_PYTHON:-python3}" "$here/engine/server.py" "$2" "$here/engine/word"'
_SERVER = """
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[3]) if self.path == "/health" else 200)
        self.end_headers()
        health = {"status": "ok", "version": json.load(open("manifest.json"))["version"], "pid": os.getpid()}
        self.wfile.write(json.dumps(health).encode() if self.path == "/health" else open(sys.argv[2], "rb").read())
    def log_message(self, *words):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


HEALTHY, UNHEALTHY = f"{_SERVE} 200", f"{_SERVE} 500"


@dataclass(frozen=True)
class Small:
    """A bundle. word: what it says. check: how `--check` ends. serve: what `--http` does. ballast: bytes of another file."""

    word: str = "one"
    version: int = 1
    check: str = "exit 0"
    serve: str = HEALTHY
    ballast: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)


def make_bundle(folder: Path, small: Small = Small(), key: Path | None = None) -> Path:
    """Write a bundle into a new folder and return its file; with a private key it is signed."""
    content = folder / "content"
    (content / "engine").mkdir(parents=True)
    fields = {"name": "onnxruntime-fp32", "version": small.version, "task": "semantic", "target": "onnxruntime", "precision": "fp32",
              "engine": "engine/word", "tolerance": Tolerance(0.05, 0.02), "golden": 0}  # fmt: skip
    (content / "manifest.json").write_text(Manifest(**{**fields, **small.manifest}).to_json())
    (content / "spec.json").write_text(json.dumps(_SPEC.to_dict()))
    (content / "engine/word").write_text(f"{small.word}\n")
    (content / "engine/server.py").write_text(_SERVER)
    (content / "engine/ballast").write_bytes(bytes(small.ballast))
    (content / "run").write_text(_RUN.format(check=small.check, serve=small.serve))
    (content / SUMS).write_bytes(render_sums(hashes_in(content)))
    if key is not None:
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", "edgekd-bundle", "-f", str(key), str(content / SUMS)]
        subprocess.run(sign, check=True, capture_output=True)
        assert (content / SIGNATURE).exists()
    pack(content, folder / "bundle.tar")
    return folder / "bundle.tar"


def make_key(folder: Path, name: str) -> Path:
    """Make a key pair and return the private key's file; the public one is beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True)
    return folder / name


def allow(key: Path) -> str:
    """Return a line of an allowed_signers file."""
    return f"{key.name} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n"

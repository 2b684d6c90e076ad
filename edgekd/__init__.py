"""edgekd: from a large teacher to a measured int8 engine on an edge chip.

edgekd.run(recipe, out)       run a recipe's pipeline, return the report
edgekd.run_study(recipe, out) compare distillation methods over seeds, return the study
edgekd.tune(run)              measure settings that make a run's engines faster
edgekd.load_engine(path)      context manager: image in, class map out
edgekd.predict(path, images)  class maps or objects of many images, also on a board
edgekd.load_report(path)      read a report.json
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_engine", "load_report", "predict", "run", "run_study", "tune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from edgekd import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgekd' has no attribute {name!r}")

"""Launchers: plugins that execute the runs of a study.

A launcher has `Options`, and `run_all(runs, options, on_run)`, which does the runs and calls `on_run` with each run that ends.
With `TRAINS_TEACHER` it also trains the teacher, which otherwise trains in the study's process.
"""

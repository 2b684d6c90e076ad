"""Places where the runs of a study are done: a plugin per launcher.

A launcher has `Options`, and `run_all(runs, options, on_run)`, which does the runs and calls `on_run` with each when it has ended.
`TRAINS_TEACHER` says that the teacher is a run of it, too, and is not trained in the process of the study.
"""

"""Compares runs by their reports, and holds a run to limits."""

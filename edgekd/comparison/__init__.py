"""Compares runs by their reports, and checks a run against limits."""

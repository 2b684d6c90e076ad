"""Brings a bundle to a board and makes it the current release there."""

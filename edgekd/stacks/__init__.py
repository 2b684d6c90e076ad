"""Files that let other software run an engine: a plugin per stack."""

"""Task losses: what the student learns from the labels."""

"""Scores each prediction by the member's next play."""

"""Plays to learn from and to replay: a real data set, a simulated world, and their common form at rest."""

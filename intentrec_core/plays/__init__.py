"""Plays at rest: tables, members, training windows and batches."""

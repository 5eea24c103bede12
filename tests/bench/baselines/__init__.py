"""Baselines: for each job, the simplest honest program that a user would run instead."""

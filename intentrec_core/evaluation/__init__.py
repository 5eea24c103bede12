"""Offline evaluation: a split by time, a ranking of every item, and reference rankers with the same filter."""

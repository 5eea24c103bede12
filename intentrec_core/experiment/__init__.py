"""Experiments: models and baselines learn what a protocol lets them, and are asked for what it asks (``intentrec eval``)."""

"""The demo: starts a broker, a worker and a trainer, replays plays, observes, draws."""

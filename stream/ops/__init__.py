"""What operators see: metrics, health, liveness, and how a process ends."""

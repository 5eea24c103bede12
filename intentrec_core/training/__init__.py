"""Training: the loop, the losses, and the optimiser of a model."""

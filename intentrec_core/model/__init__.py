"""The model: attention, item encoder, intent encoder, heads."""

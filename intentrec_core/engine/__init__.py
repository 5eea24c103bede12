"""Incremental inference: cache slots, the encoders for CPU and CUDA, the reference."""

"""Incremental inference: which member has which part of the cache, the encoders for CPU and CUDA, the reference."""

"""The encoder for CUDA devices."""

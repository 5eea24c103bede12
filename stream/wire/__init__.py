"""Message types, bytes to plays and back, dead letters, erasure requests, published contracts."""

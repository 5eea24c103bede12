"""The encoder for CPUs, one compiled step over ragged rows; see docs/cpu-engine.md."""

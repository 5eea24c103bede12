"""Compiled building blocks for CPUs."""

"""Catalogue, vocabulary, and the model inputs of a context."""

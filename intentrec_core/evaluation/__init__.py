"""How good a model is, as it would have been served: split by time, every item ranked, references under the same rules."""

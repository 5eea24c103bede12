"""Domain files: fields, intents, windows and filters."""

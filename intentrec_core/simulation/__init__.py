"""A simulated world whose intents are known."""

"""What usually follows what: counted transitions between items, beside the trained score."""

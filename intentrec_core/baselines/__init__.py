"""References that any model has to beat: what is popular now, and what usually follows the last plays."""

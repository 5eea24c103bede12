"""What a user would pick instead: each baseline is the simplest honest program for its job."""

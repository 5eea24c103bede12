"""What is wrong with an installation, from broker to disk, and the remedy of each thing."""

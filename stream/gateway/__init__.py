"""What UI services talk to: the newest state of each member over HTTP, read from the topics, and events as it changes."""

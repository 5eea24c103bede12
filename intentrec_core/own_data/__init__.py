"""The way from tables of others to a folder of plays and items, and from that folder to a draft of its domain."""

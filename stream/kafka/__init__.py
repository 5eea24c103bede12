"""Kafka clients: topics, publisher, readers of whole topics, replay."""

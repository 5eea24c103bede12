"""Brokers on this machine: the embedded one, and Apache Kafka from its jars."""

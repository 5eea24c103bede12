"""From Kafka to the pipeline and back, with no model: transport, inference loop, partition tasks, checkpoints."""

"""From plays to answers, with no Kafka: folding, encoding with the serving bundles, retrieval, messages."""

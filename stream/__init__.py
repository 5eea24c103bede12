"""Everything that touches Kafka, the clock, threads and HTTP."""

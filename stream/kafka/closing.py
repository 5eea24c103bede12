"""Old place of :mod:`stream.kafka.clients`, until every importer uses the new one."""

from stream.kafka.clients import close_consumer as close_consumer
from stream.kafka.clients import close_producer as close_producer

"""Old place of :mod:`stream.kafka.clients`, until every importer uses the new one."""

from stream.kafka.clients import reader as reader

"""Limits of a play and of an item, the same on the topics, in tables and in the library."""

from __future__ import annotations

#: Of every id, in UTF-8 bytes. Ids are keys and are written with every play, so an oversized id costs every consumer.
MAX_ID_BYTES = 256
#: Characters of an action, and of a name in the context.
MAX_NAME_LENGTH = 256
#: Characters of a text in the context.
MAX_TEXT_LENGTH = 1024
#: Entries of the context.
MAX_CONTEXT_ENTRIES = 64
#: 366 days. A longer duration means that the producer sent milliseconds, or an end time, instead of seconds.
MAX_DURATION_S = 31_622_400.0
#: Characters of a title in a recommendation; a longer one is cut when a bundle is loaded. A list holds up to 500 of them.
MAX_TITLE_LENGTH = 1024

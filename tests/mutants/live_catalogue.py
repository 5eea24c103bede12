"""Faults by which a withdrawn item would come back, or a new one would not come."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_SWITCH, _SHOWN = "stream/pipeline/bundle_switch.py", "stream/pipeline/shown_items.py"
_PROPERTY = ("tests/property/test_live_catalogue.py",)

LIVE_CATALOGUE = (
    Mutant(
        "the coming bundle does not hear of a withdrawal",
        (
            Edit(
                _SWITCH,
                "for runner in self._runners:\n            runner.items",
                "for runner in self._runners[:1]:\n            runner.items",
            ),
        ),
        _PROPERTY,
    ),
    Mutant(
        "what changed while a bundle was looked up is forgotten",
        (Edit(_SWITCH, "return looked_up.changed(self._catalogue.since(looked_up.version))", "return looked_up"),),
        _PROPERTY,
    ),
    Mutant(
        "a bundle that comes back shows its own items",
        (
            Edit(
                _SWITCH,
                "            return ShownItems.of_catalogue(serving, self._catalogue)\n        return looked_up.changed",
                "            return ShownItems.of_bundle(serving)\n        return looked_up.changed",
            ),
        ),
        _PROPERTY,
    ),
    Mutant(
        "masks of the items before are kept",
        (
            Edit(
                "index/filters.py",
                "        )\n        return other\n",
                "        )\n        other._masks = self._masks\n        return other\n",
            ),
        ),
        ("tests/unit/index/test_conditioning_and_filters.py", *_PROPERTY),
    ),
    Mutant(
        "the search goes on with the masks of the items before",
        (Edit("stream/pipeline/retrieval.py", "if filters is not self._filters or len(", "if len("),),
        _PROPERTY,
    ),
    Mutant(
        "an item that changes twice is not among the newest changes",
        (
            Edit(
                "stream/pipeline/live_catalogue.py",
                "            self._entries.pop(item_hash, None)\n",
                "",
            ),
        ),
        _PROPERTY,
    ),
    Mutant(
        "what a topic that was made anew does not have stays in lists",
        (
            Edit(
                "stream/pipeline/live_catalogue.py",
                "dict.fromkeys(self._entries) | dict(changes.items) if changes.is_whole else changes.items",
                "changes.items",
            ),
        ),
        ("tests/unit/stream/pipeline/test_live_catalogue.py", *_PROPERTY),
    ),
    Mutant(
        "each record of an item that stays as it is changes the bundles",
        (Edit("stream/pipeline/live_catalogue.py", "if held is not None and held.item == item:", "if False:"),),
        ("tests/unit/stream/pipeline/test_live_catalogue.py",),
    ),
    Mutant(
        "a micro-batch is answered with what its bundle shows by then",
        (
            Edit(
                "stream/pipeline/responder.py",
                "encoded_slice.result.failed, encoded_slice.items",
                "encoded_slice.result.failed, self.items",
            ),
            Edit(
                "stream/pipeline/bundle_switch.py",
                "            runner.items = runner.items.changed(",
                "            runner.items = runner.responder.items = runner.items.changed(",
            ),
            Edit(
                "stream/pipeline/bundle_runner.py",
                "        self._layout, self._metrics = layout, metrics\n",
                "        self._layout, self._metrics = layout, metrics\n        self.responder.items = items\n",
            ),
        ),
        _PROPERTY,
    ),
    Mutant(
        "an item that is new to the bundle gets no row",
        (Edit(_SHOWN, "sorted(with_row - added.keys())", "[]"),),
        ("tests/unit/stream/pipeline/test_shown_items.py", *_PROPERTY),
    ),
    Mutant(
        "a file puts again what was withdrawn by hand",
        (
            Edit(
                "stream/kafka/items_writer.py",
                "if before is not None and before.withdrawn:",
                "if before is not None and before.withdrawn and not before.withdrawn:",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_writer.py",),
    ),
    Mutant(
        "a broken export withdraws most items",
        (Edit("stream/kafka/items_writer.py", "MIN_KEPT_RATIO = 0.8", "MIN_KEPT_RATIO = 0.2"),),
        ("tests/unit/stream/kafka/test_items_writer.py",),
    ),
    Mutant(
        "an item that was watched before it had a row is not watched",
        (Edit("stream/pipeline/watched.py", "(rows > 0) & (rows < num_rows)", "rows < num_rows"),),
        ("tests/unit/stream/pipeline/test_shown_items.py",),
    ),
    Mutant(
        "a record that cannot be read leaves its item shown",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "            for record, item in zip(records, read, strict=True)\n",
                "            for record, item in zip(records, read, strict=True) if not isinstance(item, ValueError)\n",
            ),
        ),
        ("tests/integration/test_live_catalogue.py::test_a_record_that_is_no_item_hides_the_item_of_its_key",),
    ),
    Mutant(
        "an item without an attribute that cannot be read is named with every change",
        (
            Edit(
                "stream/kafka/unread_attributes.py",
                "            elif item_hash not in self._items:\n",
                "            else:\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_unread_attributes.py",),
    ),
    Mutant(
        "an item whose attributes can be read again counts on",
        (
            Edit(
                "stream/kafka/unread_attributes.py",
                "                self._items.discard(item_hash)\n",
                "                pass\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_unread_attributes.py",),
    ),
    Mutant(
        "a bundle that is looked up while a change is applied takes it for known",
        (
            Edit(
                "stream/pipeline/live_catalogue.py",
                "        version = self.version + 1\n",
                "        self.version = version = self.version + 1\n",
            ),
        ),
        ("tests/unit/stream/pipeline/test_live_catalogue.py",),
    ),
    Mutant(
        "what is written while a worker reads the catalogue never arrives",
        (Edit("stream/kafka/items_reader.py", "self._consumer.seek(source, self._end)", "pass"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a file undoes what was done by hand while it was copied",
        (
            Edit(
                "stream/kafka/items_writer.py",
                "                lost[key] = by_hand.pop(key)\n",
                "                pass\n",
            ),
        ),
        ("tests/integration/test_live_catalogue.py::test_what_is_done_by_hand_while_a_file_is_copied_stands",),
    ),
    Mutant(
        "items of a topic that was deleted stay shown",
        (Edit("stream/kafka/items_reader.py", "yield replace(changes, is_whole=True)", "yield changes"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a topic that was made anew with as many records is not noticed",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "return None not in (topic.topic_id, self._topic_id) and topic.topic_id != self._topic_id",
                "return False",
            ),
        ),
        (
            "tests/unit/stream/kafka/test_items_reader.py",
            "tests/integration/test_live_catalogue.py::test_a_topic_that_was_made_anew_is_read_from_its_beginning",
        ),
    ),
    Mutant(
        "a broker without topic ids makes a topic anew",
        (Edit("stream/kafka/items_reader.py", "None not in (topic.topic_id, self._topic_id) and ", ""),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "any broker is asked for the id of a topic",
        (Edit("stream/kafka/topic_id.py", "if node in (None, -1):", "if True:"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a new topic without a record empties every list",
        (Edit("stream/kafka/items_reader.py", "any(item is not None for item in changes.items.values())", "True"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a withdrawal as the first record of a new topic empties every list",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "any(item is not None for item in changes.items.values())",
                "changes.items",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "what a new topic without an item withdraws stays shown",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "                    yield changes\n            except",
                "            except",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a worker seems to know what an open transaction holds back",
        (Edit("stream/kafka/topic_id.py", "_READ_UNCOMMITTED, _LATEST = 0, -1", "_READ_UNCOMMITTED, _LATEST = 1, -1"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a worker that reads the catalogue again seems to know what an open transaction holds back",
        (Edit("stream/kafka/items_reader.py", "if written <= self._end or not self._as_of_s:", "if True:"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "of a topic with several partitions only one counts",
        (Edit("stream/kafka/items_reader.py", "if topic.num_partitions != 1:", "if not topic.num_partitions:"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a worker that waits for its first bundle takes what it fetched of the topic before for the new one's",
        (Edit("stream/kafka/items_reader.py", "if not self._is_anew(await self._topic()):", "if True:"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a client whose topic is gone asks for it without end",
        (Edit("stream/kafka/known_nodes.py", "            await asyncio.sleep(_PAUSE_S)\n", "            pass\n"),),
        ("tests/unit/stream/kafka/test_known_nodes.py",),
    ),
    Mutant(
        "clients create the topics that they ask for",
        (Edit("stream/settings.py", "__defaults__ = (None, False)", "__defaults__ = (None, True)"),),
        (
            "tests/integration/test_live_catalogue.py::test_a_deleted_topic_empties_no_list_where_the_broker_creates_topics",
        ),
    ),
    Mutant(
        "no record seems to wait while the inference thread takes no changes",
        (Edit("stream/kafka/items_reader.py", "saw_lag(look.end - known, self._as_of_s)", "pass"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a topic that is gone has the number of waiting records that it had",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "                saw_lag(math.nan, self._as_of_s)\n                await",
                "                await",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a broker that fails leaves the number of waiting records as it was",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "                saw_lag(math.nan, self._as_of_s)\n                self._warn(error)\n",
                "                self._warn(error)\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a consumer asks without end for a topic that is gone",
        (Edit("stream/kafka/items_reader.py", "                self._consumer.unsubscribe()\n", ""),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a broker that is slow at the start is not waited for",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "                await self._consumer.start()\n                await self._rewind()\n",
                "                await self._consumer.start()\n"
                "                async with asyncio.timeout(_LOOK_DEADLINE_S):\n"
                "                    await self._rewind()\n",
            ),
        ),
        ("tests/integration/test_live_catalogue.py::test_a_broker_that_is_slow_at_the_start_is_waited_for",),
    ),
    Mutant(
        "a broker that contradicts itself keeps a worker busy",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "                await asyncio.sleep(next_reread_s - time.monotonic())\n",
                "",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "what was fetched before a look at the broker failed is lost",
        (
            Edit(
                "stream/kafka/items_reader.py",
                "self._consumer.seek(self._source, known)  # what was fetched before the failure is fetched again",
                "pass",
            ),
        ),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "a worker that never knows all of the items topic seems to know it",
        (Edit("stream/kafka/items_reader.py", "            if known >= awaited.end:\n", "            if awaited:\n"),),
        ("tests/unit/stream/kafka/test_items_reader.py",),
    ),
    Mutant(
        "rows of withdrawn items are never free again",
        (Edit(_SHOWN, "set(added.values())", "set(range(len(self.serving.vocabulary), len(self.titles)))"),),
        ("tests/unit/stream/pipeline/test_shown_items.py", *_PROPERTY),
    ),
    Mutant(
        "an item that was left out gets no row when one is free",
        (Edit(_SHOWN, "sorted(with_row - added.keys())", "sorted(changes.keys() & with_row - added.keys())"),),
        ("tests/unit/stream/pipeline/test_shown_items.py", *_PROPERTY),
    ),
    Mutant(
        "the watched items of every member are looked up anew whenever an item comes or goes",
        (Edit("stream/pipeline/watched.py", "((rows > 0) & (rows < num_rows)).all()", "False"),),
        ("tests/unit/stream/pipeline/test_watched.py",),
    ),
    Mutant(
        "which new items are shown depends on when they came",
        (Edit(_SHOWN, "    with_row = _with_row(new)\n", "    with_row = set(list(new)[:MAX_ADDED])\n"),),
        ("tests/unit/stream/pipeline/test_shown_items.py",),
    ),
    Mutant(
        "an item is watched because the one in its row before was",
        (
            Edit(
                "stream/pipeline/watched.py",
                "(rows > 0) & (rows < num_rows)",
                "rows > 0",
            ),
        ),
        ("tests/unit/stream/pipeline/test_shown_items.py",),
    ),
    Mutant(
        "an item has the id of the one in its row before",
        (
            Edit(
                _SHOWN, "                if row >= first:\n", "                if row >= first and not item_ids[row]:\n"
            ),
        ),
        ("tests/unit/stream/pipeline/test_shown_items.py", *_PROPERTY),
    ),
    Mutant(
        "an item is found by the vector of the one in its row before",
        (
            Edit(
                _SHOWN,
                "        searched[rows - first] = augment(vectors.weights, vectors.bias, own_labels)[of_table]\n",
                "        empty = ~searched[rows - first].any(axis=1)\n"
                "        own = augment(vectors.weights, vectors.bias, own_labels)[of_table]\n"
                "        searched[rows[empty] - first] = own[empty]\n",
            ),
        ),
        ("tests/unit/stream/pipeline/test_shown_items.py",),
    ),
    Mutant(
        "a tombstone holds against the file that is copied meanwhile",
        (
            Edit(
                "stream/kafka/items_writer.py",
                "return item is not None and (item.written_by",
                "return item is None or (item.written_by",
            ),
        ),
        (
            "tests/integration/test_live_catalogue.py"
            "::test_a_tombstone_withdraws_until_the_item_is_written_again_by_hand_or_by_a_file",
        ),
    ),
)

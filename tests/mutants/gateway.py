"""Faults in what the gateway promises: whose messages a token reads, what is newest, what memory holds, who has which members."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

GATEWAY = "stream/gateway"
UNIT = "tests/unit/stream/gateway"
TEST_GATEWAY = "tests/integration/test_gateway.py"
TEST_ACCESS, TEST_STATES, TEST_STREAMS = (
    f"{UNIT}/test_access.py",
    f"{UNIT}/test_member_states.py",
    f"{UNIT}/test_streams.py",
)
TEST_CUT_OFF = (
    f"{UNIT}/test_state_reader.py"
    "::test_a_gateway_that_the_broker_does_not_answer_is_ready_for_no_partition_until_it_has_joined_again"
)
TEST_TOKENS = f"{TEST_GATEWAY}::test_a_token_of_one_member_never_reaches_another"
TEST_READER, TEST_FILES, TEST_STORE = (
    f"{UNIT}/test_state_reader.py",
    f"{UNIT}/test_process.py",
    f"{UNIT}/test_state_store.py",
)
TEST_KEYS = f"{TEST_ACCESS}::test_keys_that_an_issuer_changes_are_read_again_and_those_for_other_purposes_left_out"
TEST_MEMBERS = f"{UNIT}/test_app.py::test_no_path_answers_the_token_of_another_member"
TEST_GONE = f"{UNIT}/test_event_stream.py::test_a_reader_who_is_gone_leaves_no_slot_behind"

GATEWAYS = (
    Mutant(
        "a token reads other members",
        (Edit(f"{GATEWAY}/access.py", "if not self.is_operator and self.user_id != user_id:", "if False:"),),
        (f"{TEST_ACCESS}::test_only_an_operator_reaches_other_members",),
    ),
    Mutant(
        "a stream asks nobody whose it is",
        (
            Edit(
                f"{GATEWAY}/member_paths.py",
                "(await checked_caller(request)).check_reaches(user_id)\n    last_id",
                "await checked_caller(request)\n    last_id",
            ),
        ),
        (TEST_TOKENS,),
    ),
    Mutant(
        "a token posts plays of other members",
        (Edit(f"{GATEWAY}/play_paths.py", "    caller.check_reaches(play.user_id)\n", ""),),
        (TEST_TOKENS,),
    ),
    Mutant(
        "a ticket works twice",
        (Edit(f"{GATEWAY}/access.py", "self._open.pop(ticket, (None, 0.0))", "self._open.get(ticket, (None, 0.0))"),),
        (f"{TEST_ACCESS}::test_a_ticket_works_once_for_its_member_and_in_its_time",),
    ),
    Mutant(
        "a ticket works for any member",
        (Edit(f"{GATEWAY}/access.py", "if owner != user_id or until_s", "if owner is None or until_s"),),
        (f"{TEST_ACCESS}::test_a_ticket_works_once_for_its_member_and_in_its_time",),
    ),
    Mutant(
        "a token that was accepted once never runs out",
        (Edit(f"{GATEWAY}/access.py", "known is not None and self._clock() < known[1]", "known is not None"),),
        (f"{TEST_ACCESS}::test_a_token_that_was_accepted_runs_out_all_the_same",),
    ),
    Mutant(
        "a token says which algorithm its key is used with",
        (Edit(f"{GATEWAY}/access.py", "algorithms=self._algorithms)", 'algorithms=["HS256", "RS256", "none"])'),),
        (TEST_ACCESS,),
    ),
    Mutant(
        "everybody is served without a key",
        (Edit(f"{GATEWAY}/access.py", "if self._keys is None and not is_loopback", "if False and not is_loopback"),),
        (f"{TEST_ACCESS}::test_without_a_key_loopback_alone_is_served",),
    ),
    Mutant(
        "an older message takes the place of a newer one",
        (Edit(f"{GATEWAY}/member_states.py", "message.offset <= known.offset", "message.offset == known.offset"),),
        (TEST_STATES,),
    ),
    Mutant(
        "memory of members is not bounded in bytes",
        (
            Edit(
                f"{GATEWAY}/member_states.py", "(self.num_bytes > self._max_bytes and len(self._members) > 1)", "False"
            ),
        ),
        (f"{TEST_STATES}::test_bytes_are_bounded_and_add_up",),
    ),
    Mutant(
        "a resumed stream repeats what was sent",
        (Edit(f"{GATEWAY}/streams.py", "if not cursor.is_past(kind, message):", "if True:"),),
        (f"{TEST_STREAMS}::test_a_resumed_stream_does_not_repeat_what_was_sent",),
    ),
    Mutant(
        "a stream that ends drops what waits",
        (
            Edit(
                f"{GATEWAY}/streams.py",
                "        self.end_reason = reason\n",
                "        self.end_reason = reason\n        self.pending.clear()\n",
            ),
        ),
        (f"{TEST_STREAMS}::test_what_waits_is_sent_before_a_stream_ends",),
    ),
    Mutant(
        "partitions move although they need not",
        (Edit(f"{GATEWAY}/ownership.py", "if quota.get(owner, 0) > 0:", "if False:"),),
        (f"{UNIT}/test_ownership.py",),
    ),
    Mutant(
        "a request is passed on for ever",
        (Edit(f"{GATEWAY}/forwarder.py", "if FORWARDED in request.headers:", "if False:"),),
        (f"{TEST_GATEWAY}::test_two_gateways_share_the_members_and_one_takes_over_when_the_other_is_killed",),
    ),
    Mutant(
        "a gateway answers for a partition that it has not read yet",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "part in self._next and part not in self._until for part in parts",
                "part in self._next for part in parts",
            ),
        ),
        (f"{UNIT}/test_state_reader.py",),
    ),
    Mutant(
        "the store takes an older message",
        (Edit(f"{GATEWAY}/state_store.py", "message.source.offset >= tonumber(ARGV[3])", "false"),),
        ("tests/integration/test_gateway_store.py::test_a_newer_message_is_never_replaced_by_an_older_one",),
    ),
    Mutant(
        "rank shows what a filter hides",
        (Edit(f"{GATEWAY}/rank_paths.py", "is_shown = allowed[rows]", "is_shown = rows > 0"),),
        (f"{UNIT}/test_bundle_view.py::test_ranking_everything_by_a_query_is_the_order_of_the_index",),
    ),
    Mutant(
        "a play is refused by fewer rules than a worker's",
        (Edit(f"{GATEWAY}/plays.py", "domain.earliest_ms, domain.max_future_ms)", "0, 1 << 50)"),),
        (
            f"{UNIT}/test_plays.py",
            f"{TEST_GATEWAY}::test_a_play_that_a_worker_would_reject_is_refused_with_its_reason_and_not_sent",
        ),
    ),
    Mutant(
        "answers wait for Nagle's algorithm",
        (
            Edit(
                f"{GATEWAY}/process.py",
                "socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)",
                "socket.socket(family, socket.SOCK_STREAM)",
            ),
        ),
        (f"{UNIT}/test_process.py",),
    ),
    Mutant(
        "a gateway that is cut off from the broker goes on answering",
        (Edit(f"{GATEWAY}/state_reader.py", "return not self.is_cut_off and all(", "return all("),),
        (TEST_CUT_OFF, "tests/faults/test_gateway_cut_off.py"),
    ),
    Mutant(
        "a gateway that was cut off answers before the group has said for whom",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "in (self._next, self._until, self._to_open):\n            places.clear()",
                "in ():\n            pass",
            ),
        ),
        (TEST_CUT_OFF,),
    ),
    Mutant(
        "a gateway that stood still answers as if nothing had been",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "            self._check_contact()  # before asking too: this process may have stood still\n",
                "",
            ),
        ),
        (TEST_CUT_OFF,),
    ),
    Mutant(
        "a gateway that joins for ever is ready",
        (Edit(f"{GATEWAY}/state_reader.py", "        self._joining_since_s = self._clock()\n", "        pass\n"),),
        (
            f"{UNIT}/test_state_reader.py::test_a_gateway_that_joins_for_longer_than_the_group_waits_is_ready_for_nothing",
        ),
    ),
    Mutant(
        "each play starts a producer of its own",
        (Edit(f"{GATEWAY}/plays.py", "return await asyncio.shield(self._starting)", "return await self._starting"),),
        (f"{UNIT}/test_plays.py::test_a_start_that_takes_longer_than_a_client_waits_is_one_start_for_all",),
    ),
    Mutant(
        "keys that were taken away go on counting",
        (Edit(f"{GATEWAY}/access.py", "        self._verified = OrderedDict()\n\n    def _look", "\n    def _look"),),
        (f"{TEST_ACCESS}::test_keys_that_an_issuer_changes_are_read_again_and_those_for_other_purposes_left_out",),
    ),
    Mutant(
        "streams that are passed on wait for a machine that is gone",
        (
            Edit(
                f"{GATEWAY}/process.py",
                '            forwarder.end("moved", lambda partition, owner: ownership.owner_of(partition) != owner)\n',
                "",
            ),
        ),
        ("tests/faults/test_gateway_stands_still.py",),
    ),
    Mutant(
        "streams of a gateway that is cut off stay open",
        (Edit(f"{GATEWAY}/state_reader.py", "        self._on_moved(())\n", ""),),
        (TEST_CUT_OFF,),
    ),
    Mutant(
        "a gateway goes on with a number of partitions that is no longer true",
        (Edit(f"{GATEWAY}/state_reader.py", "known and len(known) != self._ownership.num_partitions", "False"),),
        (f"{UNIT}/test_state_reader.py::test_another_number_of_partitions_ends_the_gateway",),
    ),
    Mutant(
        "pages of other sites reach a gateway without a key",
        (Edit(f"{GATEWAY}/app.py", "if not gateway.access.needs_token:", "if False:"),),
        (f"{UNIT}/test_app.py::test_pages_of_others_are_refused_where_there_is_no_key",),
    ),
    Mutant(
        "a foreign name that leads to this machine is answered",
        (
            Edit(
                f"{GATEWAY}/foreign_pages.py",
                "if host and not is_loopback(name) and name != self._own_host:",
                "if False:",
            ),
        ),
        (f"{UNIT}/test_foreign_pages.py",),
    ),
    Mutant(
        "a page of another origin sends plays",
        (
            Edit(
                f"{GATEWAY}/foreign_pages.py",
                "if origin is not None and origin not in own",
                "if False and origin not in own",
            ),
        ),
        (f"{UNIT}/test_foreign_pages.py::test_a_page_of_another_origin_sends_nothing",),
    ),
    Mutant(
        "one member can take every stream",
        (Edit(f"{GATEWAY}/streams.py", "if len(self._slots.get(user_id, ())) >= MAX_OF_MEMBER:", "if False:"),),
        (f"{TEST_STREAMS}::test_one_member_cannot_take_every_stream",),
    ),
    Mutant(
        "streams of all members are not bounded",
        (
            Edit(
                f"{GATEWAY}/streams.py",
                "        self._check_room()\n        slot = SlotOfAllMembers()\n",
                "        slot = SlotOfAllMembers()\n",
            ),
        ),
        (f"{TEST_STREAMS}::test_all_streams_together_are_bounded_those_of_all_members_too",),
    ),
    Mutant(
        "a single key refuses tokens that name one",
        (
            Edit(
                f"{GATEWAY}/access.py",
                "keys[0] if len(keys) == 1 and keys[0].kid is None else KeySet(keys)",
                "KeySet(keys)",
            ),
        ),
        (f"{TEST_ACCESS}::test_a_single_key_without_a_kid_is_for_tokens_with_any",),
    ),
    Mutant(
        "a message out of the store is told as a change",
        (
            Edit(
                f"{GATEWAY}/member_states.py",
                "return self._take(kind, partition, key, value, _ignore)",
                "return self._take(kind, partition, key, value, self._on_taken)",
            ),
        ),
        (f"{TEST_STATES}::test_a_message_out_of_the_store_is_known_and_nobody_is_told",),
    ),
    Mutant(
        "the store is asked for whoever sends a wrong ticket",
        (
            Edit(
                f"{GATEWAY}/requests.py",
                "    admit()\n    member = await gateway.member(user_id)\n",
                "    member = await gateway.member(user_id)\n    admit()\n",
            ),
        ),
        (f"{UNIT}/test_requests.py::test_what_admits_a_request_is_asked_before_the_store_is",),
    ),
    Mutant(
        "a member that moves while the store is asked is answered by its old gateway",
        (
            Edit(
                f"{GATEWAY}/requests.py",
                "    _check_ready(gateway, partition)  # it may have moved while the store was asked\n",
                "",
            ),
        ),
        (f"{UNIT}/test_requests.py::test_a_partition_that_moves_while_the_store_is_asked_is_not_answered_here",),
    ),
    Mutant(
        "a path names the machine that a request is passed on to",
        (Edit(f"{GATEWAY}/forwarder.py", 'if not raw_path.startswith("/v1/"):', "if False:"),),
        (f"{UNIT}/test_forwarder.py::test_a_path_that_would_name_another_machine_is_not_passed_on",),
    ),
    Mutant(
        "the end of a stream that is passed on makes a whole event of a half one",
        (
            Edit(
                f"{GATEWAY}/forwarder.py",
                "self._end_reason is not None and is_between_events",
                "self._end_reason is not None",
            ),
        ),
        (f"{UNIT}/test_forwarder.py::test_a_stream_that_is_passed_on_ends_as_an_own_one_does",),
    ),
    Mutant(
        "streams that are passed on do not end in order",
        (Edit(f"{GATEWAY}/process.py", '                self.gateway.forwarder.end_all("stopping")\n', ""),),
        (f"{TEST_GATEWAY}::test_a_gateway_that_ends_says_goodbye_on_the_streams_that_it_passes_on",),
    ),
    Mutant(
        "a play that fails drops the producer of others",
        (Edit(f"{GATEWAY}/plays.py", "if failed is None or self._producer is not failed:", "if failed is None:"),),
        (f"{UNIT}/test_plays.py::test_plays_that_fail_together_drop_their_producer_and_not_the_next_one",),
    ),
    Mutant(
        "a failure of the gateway has no headers and is not counted",
        (Edit(f"{GATEWAY}/app.py", "    app.add_middleware(FailedRequests)", "    app.add_middleware(SafeResponses)"),),
        (f"{UNIT}/test_app.py::test_a_mistake_of_ours_is_a_problem_with_all_headers_and_counts_as_failed",),
    ),
    Mutant(
        "a key for encryption checks tokens",
        (Edit(f"{GATEWAY}/access.py", '        if entry.get("use", "sig") != "sig":\n            continue\n', ""),),
        (f"{TEST_ACCESS}::test_a_key_for_another_purpose_is_none",),
    ),
    Mutant(
        "a key of an unknown type takes the others along",
        (Edit(f"{GATEWAY}/access.py", "            errors.append(error)\n", "            raise\n"),),
        (TEST_KEYS,),
    ),
    Mutant(
        "a key file does not say why its only key is none",
        (Edit(f"{GATEWAY}/access.py", "    if errors and not keys:\n", "    if False:\n"),),
        (f"{TEST_ACCESS}::test_an_only_key_of_an_unknown_type_is_named_in_the_error",),
    ),
    Mutant(
        "a system that does not take its limit of files ends a gateway",
        (
            Edit(
                f"{GATEWAY}/process.py",
                "with contextlib.suppress(ValueError, OSError):  # not every system takes its own hard limit",
                "if True:",
            ),
        ),
        (f"{TEST_FILES}::test_a_system_that_does_not_take_its_own_limit_of_files_is_no_reason_to_end",),
    ),
    Mutant(
        "a limit of files that was not raised is taken for the higher one",
        (
            Edit(
                f"{GATEWAY}/process.py",
                "    may_open, _ = resource.getrlimit(",
                "    _, may_open = resource.getrlimit(",
            ),
        ),
        (f"{TEST_FILES}::test_a_system_that_does_not_take_its_own_limit_of_files_is_no_reason_to_end",),
    ),
    Mutant(
        "files of streams that are passed on are not counted",
        (Edit(f"{GATEWAY}/process.py", "may_open < 3 * num_streams", "may_open < num_streams"),),
        (f"{TEST_FILES}::test_files_for_streams_that_are_passed_on_are_counted_too",),
    ),
    Mutant(
        "a slow search by time is given up",
        (Edit(f"{GATEWAY}/state_reader.py", "_OPEN_S = 20.0", "_OPEN_S = 2.0"),),
        (f"{TEST_READER}::test_a_search_that_takes_seconds_is_waited_for",),
    ),
    Mutant(
        "a silent node holds up a partition until its opening gives up",
        (Edit(f"{GATEWAY}/state_reader.py", "            request_timeout_ms=_REQUEST_TIMEOUT_MS,\n", ""),),
        (f"{TEST_READER}::test_a_node_that_is_silent_is_given_up_after_a_join_and_before_an_opening",),
    ),
    Mutant(
        "an end from before another gateway had the partition opens it",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "        if times_given != self._num_times_given[source]:",
                "        if False:",
            ),
        ),
        (f"{TEST_READER}::test_an_end_that_was_asked_for_before_another_gateway_had_the_partition_opens_nothing",),
    ),
    Mutant(
        "a partition that is being opened for long holds up those that come later",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "for source in self._to_open - opening:",
                "for source in () if opening else self._to_open.copy():",
            ),
        ),
        (f"{TEST_READER}::test_a_partition_that_is_being_opened_for_long_holds_up_none_that_comes_later",),
    ),
    Mutant(
        "a gateway asks leaders and not nodes",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "client.send(node, ApiVersionRequest())",
                "self._consumer.end_offsets([TopicPartition(next(iter(self._kinds)), node)])",
            ),
        ),
        (f"{TEST_READER}::test_one_answer_of_several_nodes_is_enough",),
    ),
    Mutant(
        "a gateway that the group has put out answers while it joins again",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "        if self.is_member and not self._consumer._coordinator.member_id:\n",
                "        if False:\n",
            ),
        ),
        (f"{TEST_READER}::test_a_gateway_that_the_group_no_longer_knows_is_ready_for_nothing_while_it_joins_again",),
    ),
    Mutant(
        "an old answer of the group counts, that waited while the process stood still",
        (
            Edit(
                f"{GATEWAY}/state_reader.py", "        if self.is_member and self.is_cut_off:\n", "        if False:\n"
            ),
        ),
        (f"{TEST_READER}::test_a_gateway_that_joins_for_longer_than_the_group_waits_is_ready_for_nothing",),
    ),
    Mutant(
        "a position that is not known holds up all partitions",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "async with asyncio.timeout(_POLL_MS / 1000):",
                "async with asyncio.timeout(None):",
            ),
        ),
        (f"{TEST_READER}::test_a_position_that_is_not_known_holds_up_no_other_partition",),
    ),
    Mutant(
        "a cut while a position is waited for ends the gateway",
        (Edit(f"{GATEWAY}/state_reader.py", "self._next.get(source, -1) >= end", "self._next[source] >= end"),),
        (f"{TEST_READER}::test_a_cut_while_a_position_is_waited_for_is_no_failure_and_the_others_are_not_asked",),
    ),
    Mutant(
        "positions of partitions that are gone are waited for",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "if source not in self._next or source not in self._consumer.assignment():",
                "if source not in self._consumer.assignment():",
            ),
        ),
        (f"{TEST_READER}::test_a_cut_while_a_position_is_waited_for_is_no_failure_and_the_others_are_not_asked",),
    ),
    Mutant(
        "a partition that was opened anew is ready by an old position",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "if is_read and self._until.get(source) == end:",
                "if is_read and source in self._until:",
            ),
        ),
        (f"{TEST_READER}::test_a_position_of_before_a_cut_makes_no_partition_ready_that_has_an_hour_to_read_since",),
    ),
    Mutant(
        "a burst of look-ups takes the connections of writes",
        (Edit(f"{GATEWAY}/state_store.py", "asyncio.Semaphore(_MAX_READS)", "asyncio.Semaphore(1000)"),),
        (f"{TEST_STORE}::test_a_burst_of_look_ups_is_answered_and_leaves_connections_for_writes",),
    ),
    Mutant(
        "who waits for a store that has failed asks it too",
        (
            Edit(
                f"{GATEWAY}/state_store.py",
                "async with self._reads:\n                if time.monotonic() < self._next_read_s:\n"
                "                    return {}\n",
                "if time.monotonic() < self._next_read_s:\n                return {}\n"
                "            async with self._reads:\n",
            ),
        ),
        (f"{TEST_STORE}::test_who_waits_for_a_store_that_has_failed_does_not_ask_it_too",),
    ),
    Mutant(
        "a store that goes on writing when its client has swallowed the cancellation",
        (Edit(f"{GATEWAY}/state_store.py", "if not await _whole(self._write()):", "if not await self._write():"),),
        ("tests/integration/test_gateway_store.py::test_it_ends_whenever_it_is_cancelled",),
    ),
    Mutant(
        "a message whose write failed takes the place of a newer one",
        (Edit(f"{GATEWAY}/state_store.py", "self._pending.setdefault(key, message)", "self._pending[key] = message"),),
        (f"{TEST_STORE}::test_what_comes_while_a_write_fails_is_newer_than_what_was_to_be_written",),
    ),
    Mutant(
        "offsets of an old partition hold back messages of the new one",
        (
            Edit(
                f"{GATEWAY}/streams.py",
                "self.partition, self.offsets = message.partition, {}",
                "self.partition = message.partition",
            ),
        ),
        (f"{TEST_STREAMS}::test_offsets_of_before_count_for_nothing_once_the_plays_have_other_partitions",),
    ),
    Mutant(
        "a stream begins with a state that is older than what came meanwhile",
        (Edit(f"{GATEWAY}/streams.py", "slot.pending.setdefault(kind, message)", "slot.pending[kind] = message"),),
        (f"{TEST_STREAMS}::test_what_came_while_a_stream_was_being_opened_is_newer_than_the_state_it_begins_with",),
    ),
    Mutant(
        "what was being fetched when a gateway was cut off makes it ready",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "            if source not in self._next:  # taken away while it was being fetched\n                continue\n",
                "",
            ),
        ),
        (f"{TEST_READER}::test_what_was_being_fetched_when_a_gateway_was_cut_off_makes_no_partition_ready",),
    ),
    Mutant(
        "a partition that comes back from another gateway is not read back",
        (
            Edit(
                f"{GATEWAY}/state_reader.py",
                "in (self._next, self._until, self._left_at):",
                "in (self._next, self._until):",
            ),
        ),
        (
            f"{TEST_READER}::test_a_partition_that_was_another_gateways_meanwhile_is_read_back_and_does_not_go_on_where_it_was",
        ),
    ),
    Mutant(
        "readers who are gone keep their slots",
        (Edit(f"{GATEWAY}/event_stream.py", "        self._on_gone()\n", ""),),
        (TEST_GONE,),
    ),
    Mutant(
        "a stream that has ended keeps its slot",
        (Edit(f"{GATEWAY}/event_stream.py", "            self._on_end()\n", ""),),
        (TEST_GONE,),
    ),
    Mutant(
        "streams stay where their member was",
        (
            Edit(
                f"{GATEWAY}/process.py",
                '            streams.end("moved", lambda user_id: ownership.partition_of(user_id) not in own)\n',
                "",
            ),
        ),
        (f"{TEST_GATEWAY}::test_streams_of_members_that_move_to_a_gateway_that_joins_end_and_the_others_go_on",),
    ),
    Mutant(
        "a stream that is passed on repeats what was sent",
        (Edit(f"{GATEWAY}/forwarder.py", '"Content-Type", "Last-Event-ID", "Accept"', '"Content-Type", "Accept"'),),
        (f"{UNIT}/test_forwarder.py::test_what_says_who_asks_and_from_where_on_is_passed_on_and_a_cookie_is_not",),
    ),
    Mutant(
        "a token reads the rows of other members",
        (
            Edit(
                f"{GATEWAY}/member_paths.py",
                'need not follow every change."""\n    caller.check_reaches(user_id)\n',
                'need not follow every change."""\n',
            ),
        ),
        (TEST_MEMBERS,),
    ),
    Mutant(
        "a token ranks by the taste of other members",
        (Edit(f"{GATEWAY}/rank_paths.py", "    caller.check_reaches(user_id)\n", ""),),
        (TEST_MEMBERS,),
    ),
    Mutant(
        "a body is read however large it is",
        (
            Edit(
                f"{GATEWAY}/requests.py",
                "        if len(body) > max_bytes:\n            raise _too_large(max_bytes)\n",
                "",
            ),
        ),
        (
            f"{UNIT}/test_requests.py::test_a_body_that_is_too_large_is_not_read_to_its_end_whatever_it_says_of_its_length",
        ),
    ),
    Mutant(
        "members behind one address share a rate",
        (Edit(f"{GATEWAY}/gateway.py", 'address if caller.user_id is None else f"sub {caller.user_id}"', "address"),),
        (f"{UNIT}/test_ticket_rates.py::test_members_behind_one_address_have_a_rate_each_and_an_operator_another",),
    ),
    Mutant(
        "unused tickets are not bounded",
        (Edit(f"{GATEWAY}/access.py", " or len(self._open) >= _MAX_TICKETS", ""),),
        (f"{TEST_ACCESS}::test_unused_tickets_are_bounded_and_the_oldest_are_dropped_first",),
    ),
)

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
)

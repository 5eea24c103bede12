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
)

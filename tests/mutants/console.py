"""Faults in the console's modules: what is shown twice, counted anew, lost on the way, or allowed to run."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

CONSOLE = "stream/gateway/console"
TEST_CONSOLE = "tests/unit/stream/gateway/test_console.py"
TEST_MODULES = f"{TEST_CONSOLE}::test_modules_that_draw_nothing"

CONSOLES = (
    Mutant(
        "console: an older message takes the place of a newer one",
        (Edit(f"{CONSOLE}/member_state.js", "message.source.offset <= known.source.offset", "false"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: the gateway's answer to a play wins over the worker's",
        (Edit(f"{CONSOLE}/member_state.js", 'entry && entry.state !== "answered"', "entry"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: a play is on the screen before its list is there",
        (Edit(f"{CONSOLE}/member_state.js", "isOld(this.recommendation, { source }),", "true,"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: lists of different plays are compared as if they answered one",
        (Edit(f"{CONSOLE}/changes.js", "isOfOnePlay: left.event_id === right.event_id", "isOfOnePlay: true"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: a gateway of several shows its members as if they were all",
        (Edit(f"{CONSOLE}/format.js", "return gateway.gateways > 1\n", "return gateway.gateways > 99\n"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: a worker that began anew takes back what was counted",
        (Edit(f"{CONSOLE}/health.js", "value >= last ? value - last : value", "value - last"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: what a worker counted before the page was opened is a burst",
        (Edit(f"{CONSOLE}/health.js", "isNewProcess ? 0 : value", "value"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: an event that the network cuts is lost",
        (Edit(f"{CONSOLE}/events.js", "this.#rest = lines.pop();", "lines.pop();"),),
        (TEST_MODULES,),
    ),
    Mutant(
        "console: its policy allows inline styles",
        (Edit("stream/gateway/console.py", "style-src 'self'; img-src", "style-src 'self' 'unsafe-inline'; img-src"),),
        (f"{TEST_CONSOLE}::test_its_policy_allows_its_own_files_alone",),
    ),
    Mutant(
        "console: a page is kept by the browser past a new release",
        (Edit("stream/gateway/console.py", '"Cache-Control": "no-cache"', '"Cache-Control": "max-age=3600"'),),
        (f"{TEST_CONSOLE}::test_its_policy_allows_its_own_files_alone",),
    ),
)

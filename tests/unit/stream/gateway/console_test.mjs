// The console's modules that draw nothing, run by node: test_console.py copies them beside this file.

import assert from "node:assert/strict";
import test from "node:test";

import { agreement, intentChanges, listChanges, reasonOf, rowMoves, rowsOf, steady } from "./changes.js";
import { EventParser } from "./events.js";
import { coverage, duration, intentName, otherIntents, whoseMembers } from "./format.js";
import { Health } from "./health.js";
import { hueOf, leadingLabel } from "./hues.js";
import { MemberState } from "./member_state.js";
import { makePlay, parseAttributes } from "./player.js";

const item = (id, more = {}) => ({ item_id: id, title: `Title ${id}`, score: 1, ...more });

test("events are cut wherever the network cuts them", () => {
  const text =
    'retry: 1000\n\nid: 3-1-x\nevent: intents\ndata: {"a":\ndata: 1}\n\n: heartbeat\n\nevent: bye\r\ndata: {}\r\n\r\n';
  const expected = [
    { id: "3-1-x", event: "intents", data: '{"a":\n1}' },
    { id: "3-1-x", event: "bye", data: "{}" },
  ];
  for (let size = 1; size <= text.length; size++) {
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(found, expected, `pieces of ${size}`);
  }
});

test("the largest changes of an update come first, and small ones are left out", () => {
  const before = { intents: { genre: { Drama: 0.5, Comedy: 0.3, War: 0.2 } } };
  const after = { intents: { genre: { Drama: 0.2, Comedy: 0.595, War: 0.205 }, era: { new: 1 } } };
  const found = intentChanges(before, after);
  assert.deepEqual(
    found.map(({ label }) => label),
    ["Drama", "Comedy"],
  );
  assert.deepEqual(intentChanges(null, after), []);
});

test("a list tells its new titles, its climber and its leader", () => {
  const found = listChanges([item("a"), item("b"), item("c")], [item("c"), item("d"), item("a")]);
  assert.equal(found.entered, 1);
  assert.deepEqual([found.climber.item.item_id, found.climber.from, found.climber.to], ["c", 3, 1]);
  assert.equal(found.leader.item_id, "c");
  assert.deepEqual(listChanges(undefined, [item("a")]), { entered: 0, climber: null, leader: null });
});

test("two lists agree in their first titles, and it is said whether they answer one play", () => {
  const left = { event_id: "e1", items: [item("a"), item("b"), item("c")] };
  const right = { event_id: "e2", items: [item("c"), item("a")] };
  assert.deepEqual(agreement(left, right, 10), { shared: 2, of: 3, isOfOnePlay: false });
  assert.deepEqual(agreement(left, right, 1), { shared: 0, of: 1, isOfOnePlay: false });
  assert.equal(agreement(left, { ...right, event_id: "e1" }, 10).isOfOnePlay, true);
});

test("coverage is a share of the places that were seen, and one is no plural", () => {
  const lists = [
    ["a", "b", "c", "d"],
    ["a", "b", "c", "e"],
  ];
  assert.equal(coverage(lists), "5 different titles in 8 places of the last 2 lists (63 %)");
  assert.equal(coverage([["a"]]), "1 different title in 1 place of the last 1 list (100 %)");
  assert.deepEqual([coverage([]), coverage([[]])], ["", ""]);
});

test("a gateway of several says that its members are not all", () => {
  assert.equal(whoseMembers({ gateways: 3 }), "Members of this gateway: each of the 3 gateways shows its own");
  assert.equal(whoseMembers({ gateways: 1 }), "All members: there is one gateway");
  assert.equal(whoseMembers(undefined), "", "an operator's figure that is not known");
});

test("rows are those of the message, and its list is one row without any", () => {
  const items = [item("a"), item("b")];
  assert.deepEqual(
    rowsOf({ items }).map(({ key, title }) => [key, title]),
    [["list", "Recommended now"]],
  );
  assert.equal(rowsOf({ items, fallback: "popular" })[0].title, "Popular now");
  assert.deepEqual(rowsOf(null), []);
  const row = {
    kind: "intent",
    head: "genre",
    label: "Drama",
    title: "For Drama",
    weight: 0.2,
    items: [{ item_id: "b", title: "Title b" }],
  };
  const [found] = rowsOf({ items, rows: [row] });
  assert.deepEqual([found.key, found.title, found.items[0].score], ["intent genre Drama", "For Drama", 1]);
  assert.equal(rowsOf({ items, rows: [] })[0].key, "list");
  const before = [{ key: "x" }, { key: "y" }];
  assert.deepEqual(
    [...rowMoves(before, [{ key: "y" }, { key: "z" }, { key: "x" }])],
    [
      ["y", 1],
      ["z", null],
      ["x", -2],
    ],
  );
});

test("a row passes the one above it only if it weighs clearly more", () => {
  const row = (key, weight) => ({ key, weight });
  const keys = (shown, ...rows) => steady(shown, rows).map(({ key }) => key);
  assert.deepEqual(keys([], row("a", 0.2), row("b", 0.24), row("c", 0.32)), ["c", "a", "b"]);
  assert.deepEqual(keys(["c", "b", "a"], row("a", 0.2), row("b", 0.24), row("c", 0.2)), ["c", "b", "a"]);
  assert.deepEqual(keys(["c", "b", "a"], row("a", 0.4), row("b", 0.24), row("d", 0.2)), ["a", "b", "d"]);
  assert.deepEqual(steady(["list"], [{ key: "list" }]), [{ key: "list" }]);
});

test("a reason is said in words, and an unknown one is not made up", () => {
  assert.equal(reasonOf(item("a")), null);
  assert.equal(reasonOf(item("a", { reason: { because: "intent", head: "genre", label: "Drama" } })), "For Drama");
  assert.equal(
    reasonOf(item("a", { reason: { because: "because_of", item_id: "b", title: "Heat" } })),
    "Because of Heat",
  );
  assert.equal(reasonOf(item("a", { reason: { because: "later" } })), null);
});

test("a label without letters is named with its intent", () => {
  assert.equal(intentName({ head: "rating", label: "3" }), "Rating 3");
  assert.equal(intentName({ head: "genre", label: "Drama" }), "Drama");
  const update = {
    intents: { a: { x: 0.4, y: 0.6 }, b: { z: 1 } },
    weights: { a: 0.1, b: 0.9 },
    primary: { head: "b", label: "z" },
  };
  assert.deepEqual(otherIntents(update), [{ head: "a", label: "y", probability: 0.6 }]);
  assert.deepEqual(
    [duration(0.0312), duration(4.25), duration(600), duration(undefined)],
    ["31 ms", "4.3 s", "10 min", "–"],
  );
});

test("a title has the hue of its likeliest label", () => {
  const intents = { genre: { Drama: 0.2, Comedy: 0.5, War: 0.3 } };
  assert.equal(leadingLabel({ attributes: { year: 1995, genres: ["War", "Comedy"] } }, intents).label, "Comedy");
  assert.equal(leadingLabel({ attributes: { genres: ["Opera"] } }, intents), null);
  assert.equal(new Set(["Drama", "Comedy", "War"].map((label) => hueOf(Object.keys(intents.genre), label))).size, 3);
});

function message(offset, more = {}) {
  return {
    event_id: `e${offset}`,
    event_time: "2026-03-01T20:15:00.000Z",
    source: { partition: 0, offset },
    latency_s: 0.03,
    ...more,
  };
}

test("a member's state takes each message once", () => {
  const state = new MemberState("u");
  state.begin("e5", { item_id: "a", title: "A" }, 1000);
  assert.equal(state.take("recommendations", message(4, { items: [item("b"), item("a")] })), true);
  assert.equal(state.take("recommendations", message(5, { items: [item("b")] })), true);
  assert.equal(state.take("recommendations", message(5, { items: [item("b")] })), false);
  assert.equal(state.take("recommendations", message(3, { items: [] })), false);
  const [newest] = state.plays.filter(({ eventId }) => eventId === "e5");
  assert.deepEqual([newest.state, newest.foundAt], ["answered", 2]);
  state.mark("e5", "sent");
  assert.equal(newest.state, "answered", "the answer came before the gateway's own");
});

test("a play is timed when both of its messages are on the screen, and once", () => {
  const state = new MemberState("u");
  state.begin("e5", { item_id: "a", title: "A" }, 1000);
  state.begin("e6", { item_id: "b", title: "B" }, 1050);
  state.take("intents", message(5, { intents: {} }));
  assert.deepEqual(state.untimed(), [], "its list is not there");
  state.take("recommendations", message(5, { items: [item("b")] }));
  const drawn = state.untimed();
  assert.deepEqual(
    drawn.map(({ eventId }) => eventId),
    ["e5"],
  );
  state.time(drawn, 1100);
  state.time(drawn, 1900);
  assert.equal(drawn[0].seenAfterS, 0.1);
  assert.deepEqual(state.untimed(), [], "the other is not answered");
});

test("a play is timed by a later one where a message of its own was left out", () => {
  const state = new MemberState("u");
  state.begin("e5", { item_id: "a", title: "A" }, 1000);
  state.take("intents", message(5, { intents: {} }));
  state.take("recommendations", message(6, { items: [item("b")] }));
  assert.deepEqual(
    state.untimed().map(({ eventId }) => eventId),
    ["e5"],
  );
});

test("a play that was sent before the view was opened has its title", () => {
  const state = new MemberState("u", (eventId) => (eventId === "e5" ? item("a") : undefined));
  state.take("intents", message(4, { intents: {} }));
  state.take("intents", message(5, { intents: {} }));
  assert.deepEqual(
    state.plays.map((play) => play.item?.title),
    ["Title a", undefined],
  );
  assert.deepEqual(state.untimed(), [], "when it was pressed is not known");
});

test("a play says what was typed, and nothing else", () => {
  assert.deepEqual(parseAttributes("rating=5, device = tv\nnonsense\naction=watch\nempty="), {
    rating: 5,
    device: "tv",
    action: "watch",
  });
  const play = makePlay("u", "i", { action: "watch", rating: 5, duration_s: 60 });
  assert.deepEqual([play.action, play.duration_s, play.context], ["watch", 60, { rating: 5 }]);
  assert.deepEqual(Object.keys(makePlay("u", "i", {})).sort(), ["event_id", "item_id", "ts", "user_id"]);
});

function status(consumed, judged, bundle = "b1", more = {}) {
  const metrics = {
    intentrec_plays_consumed_total: [{ labels: {}, value: consumed }],
    intentrec_judged_plays_total: [{ labels: { bundle }, value: judged }],
    intentrec_judged_hits_total: [{ labels: { bundle }, value: judged / 4 }],
    intentrec_bundle_info: [{ labels: { bundle }, value: 1 }],
    intentrec_stage_seconds_sum: [{ labels: { stage: "encode" }, value: consumed / 1000 }],
  };
  return { updates: {}, announcements: [], bundle: null, processes: [{ url: "w", ready: true, metrics, ...more }] };
}

test("counters become rates, from the first answer on", () => {
  const health = new Health();
  health.take(status(10_000, 400), 0);
  assert.equal(health.quality(), null);
  health.take(status(10_200, 440), 2000);
  assert.equal(health.samples.at(-1).playsPerS, 100);
  assert.deepEqual([health.quality().judged, health.quality().model], [40, 0.25]);
  assert.equal(health.qualityOf("b1").judged, 40, "since the page was opened");
  const [{ stage, busy }] = health.stages();
  assert.deepEqual([stage, busy.toFixed(6)], ["encode", "0.100000"]);
});

test("a worker that began anew, and a new bundle, take nothing back and add nothing twice", () => {
  const health = new Health();
  health.take(status(10_000, 400), 0);
  health.take(status(10_100, 500), 1000);
  health.take(status(50, 30, "b2"), 2000);
  assert.equal(health.samples.at(-1).playsPerS, 75);
  assert.equal(health.quality().judged, 130);
  assert.deepEqual(
    health.swaps.map(({ bundle, isFirst }) => [bundle, isFirst]),
    [
      ["b1", true],
      ["b2", false],
    ],
  );
  assert.equal(health.qualityOf("b2").judged, 30);
});

test("a worker that does not answer for a moment is no jump when it comes back", () => {
  const health = new Health();
  health.take(status(10_000, 400), 0);
  health.take(status(0, 0, "b1", { ready: false, metrics: {} }), 1000);
  health.take(status(10_100, 400), 2000);
  assert.equal(health.samples.at(-1).playsPerS, 50);
});

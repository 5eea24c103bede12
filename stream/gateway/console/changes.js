// What one play changed: the intents and the list after it, against those before.

import { intentName } from "./format.js";

/** The largest changes of probability between two intent updates, as {head, label, from, to}, largest first. */
export function intentChanges(before, after, most = 3, least = 0.01) {
  if (!before) return [];
  const all = [];
  for (const [head, labels] of Object.entries(after.intents)) {
    for (const [label, to] of Object.entries(labels)) {
      const from = before.intents[head]?.[label];
      if (from !== undefined && Math.abs(to - from) >= least) all.push({ head, label, from, to });
    }
  }
  return all.sort((a, b) => Math.abs(b.to - b.from) - Math.abs(a.to - a.from)).slice(0, most);
}

/** What happened to a list: how many titles are new in it, which one climbed most, and which one leads. */
export function listChanges(before, after) {
  const ranks = new Map((before ?? []).map((item, at) => [item.item_id, at + 1]));
  if (!ranks.size) return { entered: 0, climber: null, leader: null };
  let climber = null;
  after.forEach((item, at) => {
    const from = ranks.get(item.item_id);
    if (from && from - (at + 1) > (climber ? climber.from - climber.to : 0)) climber = { item, from, to: at + 1 };
  });
  const entered = after.filter((item) => !ranks.has(item.item_id)).length;
  const leader = after.length && after[0].item_id !== before[0]?.item_id ? after[0] : null;
  return { entered, climber, leader };
}

/**
 * How far two lists agree: `shared` of the first `of` titles are in both, and `isOfOnePlay` says whether both answer the same play. After
 * a swap they do not, and what differs is not of the bundles alone.
 */
export function agreement(left, right, shown) {
  const [ids, others] = [left, right].map(({ items }) => items.slice(0, shown).map(({ item_id }) => item_id));
  return {
    shared: others.filter((id) => ids.includes(id)).length,
    of: Math.max(ids.length, others.length),
    isOfOnePlay: left.event_id === right.event_id,
  };
}

/** The rows of a recommendation; without any, its list as one row. */
export function rowsOf(recommendation) {
  if (!recommendation) return [];
  if (recommendation.rows?.length) {
    const listed = new Map(recommendation.items.map((item) => [item.item_id, item]));
    return recommendation.rows.map((row) => ({
      key: [row.kind, row.head, row.label, row.item_id].filter(Boolean).join(" "),
      title: row.title,
      weight: row.weight,
      items: row.items.map((item) => ({ ...listed.get(item.item_id), ...item })),
    }));
  }
  const title = recommendation.fallback === "popular" ? "Popular now" : "Recommended now";
  return [{ key: "list", title, items: recommendation.items, isList: true }];
}

/** A row goes above the topmost row that it outweighs by more than this factor. */
const MARGIN = 1.25;

/**
 * The rows of a new page, with those that are `shown` (their keys, first row first) in their places as long as no other weighs clearly
 * more: the rule of stream/wire/row_order.py.
 */
export function steady(shown, rows) {
  const place = (row) => (shown.includes(row.key) ? shown.indexOf(row.key) : shown.length);
  const ordered = [];
  for (const row of [...rows].sort((a, b) => place(a) - place(b))) {
    const at = ordered.findIndex((above) => row.weight > MARGIN * above.weight);
    ordered.splice(at < 0 ? ordered.length : at, 0, row);
  }
  return ordered;
}

/** Why an item is shown, in words; null where the message gives no reason. */
export function reasonOf(item) {
  const reason = item.reason;
  if (!reason) return null;
  const what = reason.label ?? reason.title ?? reason.item_id;
  switch (reason.because) {
    case "continue":
      return "You played it";
    case "intent":
      return what ? `For ${intentName(reason)}` : "Fits the intent";
    case "because_of":
      return what ? `Because of ${what}` : "Like what you played";
    case "popular":
      return "Popular now";
    case "new":
      return "New";
    default:
      return what ?? null;
  }
}

/** Moves of the rows between two recommendations: by key, how many places each row climbed (positive) or fell. */
export function rowMoves(before, after) {
  const places = new Map(before.map((row, at) => [row.key, at]));
  return new Map(after.map((row, at) => [row.key, places.has(row.key) ? places.get(row.key) - at : null]));
}

// Titles and attributes of items: asked for once each, a few at a time.

import { path, request } from "./api.js";

const AT_ONCE = 4;
const POPULAR = 200;

const known = new Map();
const waiting = [];
let asking = 0;

/** What is known of an item now; undefined while it is asked for. `onKnown` is called once it is there. */
export function itemOf(itemId, onKnown) {
  const entry = known.get(itemId);
  if (entry && entry !== "asked") return entry;
  if (onKnown) addEventListener(`item ${itemId}`, () => onKnown(known.get(itemId)), { once: true });
  if (entry) return undefined;
  known.set(itemId, "asked");
  waiting.push(itemId);
  ask();
  return undefined;
}

/** The popular items of the bundle, with attributes. */
export async function popularItems(signal) {
  const { items } = await request(path`/v1/items?limit=${POPULAR}`, { signal });
  for (const item of items) keep(item);
  return items;
}

/** Items whose title or id has all words of a text. */
export async function findItems(text, limit, signal) {
  const { items } = await request(path`/v1/items?q=${text}&limit=${limit}`, { signal });
  for (const item of items) keep(item);
  return items;
}

function keep(item) {
  known.set(item.item_id, item);
  dispatchEvent(new Event(`item ${item.item_id}`));
}

async function ask() {
  if (asking >= AT_ONCE || !waiting.length) return;
  asking += 1;
  const itemId = waiting.shift();
  if (known.get(itemId) === "asked") {
    try {
      keep(await request(path`/v1/items/${itemId}`));
    } catch {
      known.delete(itemId); // asked again when it is shown again
    }
  }
  asking -= 1;
  ask();
}

// What is known of one title, and the titles nearest to it.

import { itemOf } from "./catalogue.js";
import { path, request } from "./api.js";
import { h } from "./dom.js";
import { words } from "./format.js";

const SIMILAR = 6;

/** Shows a dialog. With `onPlay` it has a button that plays the title as the member. */
export async function showDetails(item, { userId, onPlay }) {
  const similar = h("ol", { class: "plain" }, h("li", { class: "quiet" }, "Looking…"));
  const close = () => dialog.close();
  const dialog = h(
    "dialog",
    { class: "details", "aria-labelledby": "details-title", on: { close: () => dialog.remove() } },
    h("h2", { id: "details-title" }, item.title ?? item.item_id),
    attributeList(itemOf(item.item_id) ?? item),
    h("h3", {}, "Nearest titles"),
    similar,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", class: "plain", on: { click: close } }, "Close"),
      h(
        "button",
        { type: "button", class: "strong", on: { click: () => (close(), onPlay(item)) } },
        `Play as ${userId}`,
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  try {
    const { items } = await request(path`/v1/items/${item.item_id}/similar?k=${SIMILAR}`);
    similar.replaceChildren(
      ...items.map((near) =>
        h("li", {}, near.title ?? near.item_id, " ", h("span", { class: "quiet" }, near.score.toFixed(2))),
      ),
    );
    if (!items.length) similar.replaceChildren(h("li", { class: "quiet" }, "None."));
  } catch (error) {
    similar.replaceChildren(h("li", { class: "quiet" }, error.message));
  }
}

function attributeList(item) {
  const pairs = Object.entries({ item_id: item.item_id, ...item.attributes });
  return h(
    "dl",
    { class: "pairs" },
    pairs
      .map(([name, value]) => [
        h("dt", {}, words(name)),
        h("dd", {}, Array.isArray(value) ? value.join(", ") : String(value)),
      ])
      .flat(),
  );
}

// A title as a button: its name, what describes it, and why it is shown.

import { itemOf } from "./catalogue.js";
import { h, setAttribute, setStyle, setText } from "./dom.js";
import { labelsOfItem, leadingLabel } from "./hues.js";

const MAX_LABELS = 2;

/** For reconcile(): tiles of entries {item, intents, rank, move, verb, reason}, in a list. `onPick(item)` is called when one is pressed. */
export function tiles(onPick) {
  return {
    key: ({ item }) => item.item_id,
    create: () => {
      const parts = {
        rank: h("span", { class: "rank" }),
        move: h("span", { class: "move" }),
        title: h("span", { class: "name" }),
      };
      parts.about = h("span", { class: "about" });
      parts.reason = h("span", { class: "reason" });
      parts.verb = h("span", { class: "unseen" });
      const top = h("span", { class: "top" }, parts.rank, parts.move);
      const button = h("button", { class: "tile", type: "button", on: { click: () => onPick(element.entry.item) } });
      button.append(parts.verb, top, parts.title, parts.about, parts.reason);
      const element = h("li", {}, button);
      Object.assign(element, { parts, button });
      return element;
    },
    update: (element, entry) => {
      const isSame = element.entry?.item.item_id === entry.item.item_id;
      element.entry = entry;
      describe(
        element,
        itemOf(entry.item.item_id, isSame ? undefined : () => describe(element, itemOf(entry.item.item_id))),
      );
    },
  };
}

function describe(element, known) {
  const { parts, button, entry } = element;
  const { item, intents, rank, move, verb, reason } = entry;
  const whole = { ...known, ...item, attributes: item.attributes ?? known?.attributes };
  const lead = leadingLabel(whole, intents);
  const others = labelsOfItem(whole).map(({ label }) => label);
  const labels = [...new Set([lead?.label, ...others].filter(Boolean))].slice(0, MAX_LABELS);
  setText(parts.verb, `${verb} `);
  setText(parts.rank, rank ? String(rank) : "");
  setText(parts.move, move > 0 ? `▲ ${move}` : move < 0 ? `▼ ${-move}` : move === null ? "new" : "");
  setAttribute(parts.move, "class", `move ${move > 0 ? "up" : move < 0 ? "down" : ""}`);
  setText(parts.title, item.title ?? item.item_id);
  setText(parts.about, labels.join(" · "));
  setText(parts.reason, reason ?? "");
  setAttribute(button, "data-tinted", lead !== null);
  setStyle(button, { "--hue": lead?.hue ?? 250 });
}

/** By item id, how many places an item climbed between two lists; null for an item that is new in the list. */
export function moves(before, after) {
  const ranks = new Map((before ?? []).map((item, at) => [item.item_id, at]));
  return new Map(
    after.map((item, at) => [item.item_id, ranks.has(item.item_id) ? ranks.get(item.item_id) - at : before ? null : 0]),
  );
}

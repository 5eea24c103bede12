// The home screen: rows of titles that move as the intent moves.

import { reasonOf, rowMoves, rowsOf, steady } from "./changes.js";
import { h, reconcile, roam, setAttribute, setText } from "./dom.js";
import { percent } from "./format.js";
import { moves, tiles } from "./tile.js";

/** The panel. `update(recommendation, intents, verb)` shows a recommendation, and what moved since the one before. */
export function rowsPanel(onPick) {
  const rows = h("div", { class: "rows", data: { testid: "rows" } });
  const empty = h("p", { class: "empty", hidden: true });
  const tile = tiles(onPick);
  // The rows on the screen, those before, and the message that they are made of.
  let [shown, past, made] = [[], [], null];
  return {
    element: h("section", { class: "home", "aria-label": "Home screen" }, rows, empty),
    update(recommendation, intents, verb) {
      if (recommendation !== made) {
        const whole = rowsOf(recommendation).filter((row) => row.items.length);
        const keys = shown.map((row) => row.key);
        [shown, past, made] = [steady(keys, whole), shown, recommendation];
      }
      const climbed = rowMoves(past, shown);
      const byKey = new Map(past.map((row) => [row.key, row]));
      reconcile(rows, shown, {
        key: (row) => row.key,
        create: makeRow,
        update: (element, row) => {
          const moved = moves(byKey.get(row.key)?.items, row.items);
          const by = climbed.get(row.key);
          setText(element.heading, row.title);
          setText(element.weight, row.weight ? percent(row.weight) : "");
          setText(element.moved, by > 0 ? "moved up" : by === null && past.some((each) => !each.isList) ? "new row" : "");
          setAttribute(element, "class", row.isList ? "row list" : "row");
          const entries = row.items.map((item, at) => ({
            item,
            intents,
            verb,
            rank: row.isList ? at + 1 : null,
            reason: row.isList ? reasonOf(item) : null,
            move: moved.get(item.item_id),
          }));
          reconcile(element.items, entries, tile);
          element.stops.settle();
        },
      });
      const why = whyEmpty(recommendation);
      empty.hidden = !why;
      setText(empty, why);
    },
  };
}

function makeRow() {
  const heading = h("h2");
  const weight = h("span", { class: "quiet", title: "How much this row matters now" });
  const moved = h("span", { class: "moved" });
  const items = h("ul", { class: "tiles" });
  const element = h("section", { class: "row" }, h("header", {}, heading, weight, moved), items);
  return Object.assign(element, { heading, weight, moved, items, stops: roam(items, "button") });
}

function whyEmpty(recommendation) {
  if (!recommendation) return "Waiting for the first list…";
  if (rowsOf(recommendation).some((row) => row.items.length)) return "";
  const hidden = recommendation.hidden_by?.[0];
  if (hidden?.reason === "member_unknown") {
    return `A filter on “${hidden.key}” hides every title, because no play of this member has named “${hidden.value}” yet. Add it to “Sent with each play” below, and play a title.`;
  }
  if (hidden) return `The filter ${hidden.filter} on “${hidden.key}” hides every title from this member.`;
  return "There is nothing left to recommend: every title was watched, or is hidden by a filter.";
}

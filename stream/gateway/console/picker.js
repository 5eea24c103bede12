// Finds titles: the popular ones, by a label, or by words of their title.

import { findItems, popularItems } from "./catalogue.js";
import { h, reconcile, roam, setText } from "./dom.js";
import { labelsOfItem } from "./hues.js";
import { keepAttributes, keptAttributes } from "./player.js";
import { tiles } from "./tile.js";

const SHOWN = 24;
const MAX_LABELS = 20;
const TYPING_MS = 250;

/** The panel. `onPick(item)` is called with the title that is pressed; `update(intents, verb)` keeps the tiles in step. */
export function picker(onPick, signal) {
  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: "Title or id",
    autocomplete: "off",
    "aria-keyshortcuts": "/",
  });
  const labels = h("div", { class: "chips", role: "group", "aria-label": "Labels" });
  const items = h("ul", { class: "tiles wrap", data: { testid: "picker" } });
  const note = h("p", { class: "quiet", role: "status" });
  const attributes = h("textarea", { id: "attributes", rows: "2", spellcheck: "false", placeholder: "rating=5" });
  attributes.value = keptAttributes();
  attributes.addEventListener("change", () => keepAttributes(attributes.value));
  const more = h(
    "details",
    { class: "more" },
    h("summary", {}, "Sent with each play"),
    h(
      "label",
      { for: "attributes" },
      "One name=value a line: action, duration_s, and whatever the domain reads from a play",
    ),
    attributes,
  );
  const element = h(
    "section",
    { class: "panel picker", "aria-labelledby": "picker-title" },
    h("h2", { id: "picker-title" }, "All titles"),
    h("div", { class: "field" }, h("label", { for: "search" }, "Find a title"), search),
    labels,
    items,
    note,
    more,
  );
  const stops = roam(items, "button");
  const tile = tiles(onPick);
  let [popular, shown, chosen, intents, verb] = [[], [], null, null, "Play"];
  let typing = null;

  function draw() {
    reconcile(
      items,
      shown.slice(0, SHOWN).map((item) => ({ item, intents, verb, rank: null, move: 0 })),
      tile,
    );
    stops.settle();
  }

  function drawLabels() {
    reconcile(labels, commonLabels(popular, intents), {
      key: (label) => label,
      create: (label) =>
        h(
          "button",
          { type: "button", class: "chip", on: { click: () => choose(chosen === label ? null : label) } },
          label,
        ),
      update: (chip, label) => chip.setAttribute("aria-pressed", String(chosen === label)),
    });
  }

  function choose(label) {
    chosen = label;
    search.value = "";
    shown = label === null ? popular : popular.filter((item) => labelsOfItem(item).some((own) => own.label === label));
    setText(note, label === null ? "" : `${shown.length} of the ${popular.length} most popular titles are ${label}`);
    drawLabels();
    draw();
  }

  async function find() {
    const text = search.value.trim();
    if (!text) return choose(null);
    chosen = null;
    drawLabels();
    try {
      const found = await findItems(text, SHOWN, signal);
      if (search.value.trim() !== text) return;
      shown = found;
      setText(note, shown.length ? "" : "No title has these words.");
      draw();
    } catch (error) {
      if (!signal.aborted) setText(note, error.message);
    }
  }

  async function load() {
    try {
      popular = await popularItems(signal);
      if (!search.value && chosen === null) choose(null);
    } catch (error) {
      if (signal.aborted) return;
      setText(note, `The titles are not there yet: ${error.message}`);
      setTimeout(load, 2000);
    }
  }

  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, TYPING_MS);
  });
  load();
  return {
    element,
    attributes: () => attributes.value,
    update(newIntents, newVerb) {
      const isFirst = intents === null && newIntents;
      [intents, verb] = [newIntents, newVerb];
      if (isFirst) drawLabels();
      draw();
    },
  };
}

/** The labels that tell items apart: those of intents where there are any, most frequent first. */
function commonLabels(items, intents) {
  const counts = new Map();
  const named = new Set(Object.values(intents ?? {}).flatMap((labels) => Object.keys(labels)));
  for (const item of items) for (const { label } of labelsOfItem(item)) counts.set(label, (counts.get(label) ?? 0) + 1);
  const all = [...counts].filter(([label, count]) => count > 1 && label.length <= 24 && label !== "");
  const known = all.filter(([label]) => named.has(label));
  return (known.length ? known : all)
    .sort((a, b) => b[1] - a[1])
    .slice(0, MAX_LABELS)
    .map(([label]) => label)
    .sort();
}

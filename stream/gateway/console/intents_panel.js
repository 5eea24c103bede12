// What the member wants now: the primary intent in words, and for each intent its weight and the likeliest labels.

import { h, reconcile, setAttribute, setStyle, setText } from "./dom.js";
import { percent, words } from "./format.js";
import { hueOf } from "./hues.js";

const SHOWN = 5;
/** Few probabilities are above a half: until one is, a full bar is a half. It never goes back, so that a bar that shrinks has fallen. */
const HALF = 0.5;

/** The panel. `update(intents, before)` shows an intent update; bars have a mark where they stood before. */
export function intentsPanel() {
  const attention = h("div", { class: "attention", role: "img" });
  const heads = h("div", { class: "heads", data: { testid: "intents" } });
  const scale = h("p", { class: "quiet" });
  let full = HALF;
  const empty = h(
    "p",
    { class: "empty" },
    "Nothing is known of this member yet. The first play opens a session, and the intents appear here.",
  );
  const element = h(
    "section",
    { class: "panel intents", "aria-labelledby": "intents-title" },
    h("h2", { id: "intents-title" }, "Intents"),
    empty,
    attention,
    heads,
    scale,
  );
  return {
    element,
    update(intents, before) {
      empty.hidden = Boolean(intents);
      attention.hidden = heads.hidden = scale.hidden = !intents;
      if (!intents) return;
      if (Object.values(intents.intents).some((labels) => Math.max(...Object.values(labels)) > HALF)) full = 1;
      setStyle(heads, { "--full": full });
      setText(scale, `A full bar is ${percent(full)}; the dark mark is where it stood before.`);
      const byWeight = Object.keys(intents.intents).sort(
        (a, b) => (intents.weights[b] ?? 0) - (intents.weights[a] ?? 0),
      );
      setAttribute(
        attention,
        "aria-label",
        `How much each intent matters now: ${byWeight.map((head) => `${words(head)} ${percent(intents.weights[head] ?? 0)}`).join(", ")}`,
      );
      reconcile(attention, byWeight, {
        key: (head) => head,
        create: () => h("span", { class: "part" }, h("span")),
        update: (part, head) => {
          setStyle(part, { "--share": intents.weights[head] ?? 0 });
          setText(part.firstChild, words(head));
        },
      });
      reconcile(heads, byWeight, {
        key: (head) => head,
        create: makeHead,
        update: (table, head) => updateHead(table, head, intents, before),
      });
    },
  };
}

function makeHead(head) {
  const name = h("span", { class: "head-name" });
  const weight = h("span", { class: "quiet" });
  const body = h("tbody");
  const more = h("button", { type: "button", class: "link", "aria-expanded": "false" });
  const table = h(
    "table",
    { class: "bars" },
    h("caption", {}, name, weight),
    h(
      "thead",
      { class: "unseen" },
      h(
        "tr",
        {},
        ["Label", "Share", "Probability"].map((text) => h("th", { scope: "col" }, text)),
      ),
    ),
    body,
  );
  const element = h("div", { class: "head" }, table, more);
  more.addEventListener("click", () => {
    element.isWhole = !element.isWhole;
    setAttribute(more, "aria-expanded", String(element.isWhole));
    updateHead(element, head, element.shown, element.shownBefore);
  });
  return Object.assign(element, { name, weight, body, more });
}

function updateHead(element, head, intents, before) {
  Object.assign(element, { shown: intents, shownBefore: before });
  const labels = intents.intents[head];
  const names = Object.keys(labels);
  const sorted = [...names].sort((a, b) => labels[b] - labels[a]);
  const primary = intents.primary?.head === head ? intents.primary.label : null;
  setText(element.name, words(head));
  setText(element.weight, `weighs ${percent(intents.weights[head] ?? 0)}`);
  element.more.hidden = names.length <= SHOWN;
  setText(element.more, element.isWhole ? `Only the ${SHOWN} likeliest` : `All ${names.length}`);
  reconcile(element.body, element.isWhole ? sorted : sorted.slice(0, SHOWN), {
    key: (label) => label,
    create: makeBar,
    update: (row, label) =>
      updateBar(row, {
        label,
        names,
        to: labels[label],
        from: before?.intents[head]?.[label],
        isPrimary: label === primary,
      }),
  });
}

function makeBar() {
  const label = h("th", { scope: "row" });
  const bar = h("span", { class: "bar" }, h("span", { class: "fill" }), h("span", { class: "was" }));
  const text = h("td", { class: "figure" });
  return Object.assign(h("tr", {}, label, h("td", { class: "track", "aria-hidden": "true" }, bar), text), {
    label,
    bar,
    text,
  });
}

function updateBar(row, { label, names, to, from, isPrimary }) {
  setText(row.label, label);
  setText(row.text, percent(to));
  setAttribute(row, "data-label", label);
  setAttribute(row, "data-probability", to);
  setAttribute(row, "class", isPrimary ? "primary" : null);
  setStyle(row.bar, { "--to": to, "--from": from ?? to, "--hue": hueOf(names, label) });
  setAttribute(row.bar, "data-moved", from !== undefined && Math.abs(to - from) > 0.005);
}

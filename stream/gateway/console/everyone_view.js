// Many members at once, as their plays come in.

import { request } from "./api.js";
import { h, reconcile, setAttribute, setStyle, setText } from "./dom.js";
import { follow } from "./events.js";
import { duration, number, percent, words } from "./format.js";
import { hueOf } from "./hues.js";
import { memberHash } from "./member_view.js";

const MAX_CARDS = 24;
const TITLES = 3;
const PER_S = 20;
const COVERAGE_LISTS = 500;
const DRAW_MS = 250;

/** The view, until `signal` is aborted. */
export function everyoneView(root, { signal, connection }) {
  const members = new Map();
  const lists = [];
  let [isPaused, skipped, seen] = [false, 0, 0];

  const cards = h("ul", { class: "cards", data: { testid: "everyone" } });
  const pause = h("button", { type: "button", class: "plain", "aria-pressed": "false", on: { click: togglePause } }, "Pause");
  const note = h("p", { class: "quiet" });
  const moods = h("tbody");
  const empty = h("p", { class: "empty" }, "Members appear here as their plays come.");
  root.replaceChildren(
    h("div", { class: "toolbar" }, h("h1", { tabindex: "-1" }, "Everyone, live"), pause, note),
    h(
      "div",
      { class: "everyone" },
      h("section", { "aria-label": "Members" }, empty, cards),
      h(
        "section",
        { class: "panel", "aria-labelledby": "moods-title" },
        h("h2", { id: "moods-title" }, "Moods"),
        h(
          "table",
          { class: "bars" },
          h("caption", { class: "quiet" }, "Primary intent of the members shown here"),
          h("thead", { class: "unseen" }, h("tr", {}, ["Label", "Share", "Members"].map((text) => h("th", { scope: "col" }, text)))),
          moods,
        ),
      ),
    ),
  );

  function togglePause() {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    setText(pause, isPaused ? "Go on" : "Pause");
    draw();
  }

  function take(kind, message) {
    if (kind === "skipped") skipped += message.events;
    if (kind !== "intents" && kind !== "recommendations") return;
    seen += 1;
    let member = members.get(message.user_id);
    if (!member) {
      member = { userId: message.user_id, since: seen };
      members.set(message.user_id, member);
      if (members.size > MAX_CARDS) members.delete([...members.values()].reduce((oldest, each) => (each.at < oldest.at ? each : oldest)).userId);
    }
    member.at = seen;
    if (kind === "intents") member.intents = message;
    else {
      member.items = message.items;
      member.latencyS = message.latency_s;
      lists.push(message.items.map((item) => item.item_id));
      if (lists.length > COVERAGE_LISTS) lists.shift();
    }
  }

  function draw() {
    if (isPaused) return;
    empty.hidden = members.size > 0;
    const shown = [...members.values()].filter((member) => member.intents || member.items);
    reconcile(cards, shown, { key: ({ userId }) => userId, create: makeCard, update: updateCard });
    drawMoods(shown);
    const titles = new Set(lists.flat()).size;
    const sample = lists.length ? `${number(titles)} different titles in the last ${number(lists.length)} lists` : "";
    setText(note, [sample, skipped ? `${number(skipped)} updates left out: they come faster than ${PER_S} a second` : ""].filter(Boolean).join(" · "));
  }

  function drawMoods(shown) {
    const counts = new Map();
    for (const { intents } of shown) {
      if (!intents?.primary) continue;
      const { head, label } = intents.primary;
      const mood = counts.get(label) ?? { label, count: 0, hue: hueOf(Object.keys(intents.intents[head]), label) };
      mood.count += 1;
      counts.set(label, mood);
    }
    const all = [...counts.values()].sort((a, b) => b.count - a.count || a.label.localeCompare(b.label));
    const most = all[0]?.count ?? 1;
    reconcile(moods, all, {
      key: ({ label }) => label,
      create: ({ label }) => {
        const bar = h("span", { class: "bar" }, h("span", { class: "fill" }));
        const figure = h("td", { class: "figure" });
        return Object.assign(h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "track", "aria-hidden": "true" }, bar), figure), { bar, figure });
      },
      update: (row, { count, hue }) => {
        setStyle(row.bar, { "--to": count / most, "--hue": hue });
        setText(row.figure, String(count));
      },
    });
  }

  const timer = setInterval(draw, DRAW_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow(`/v1/updates?per_s=${PER_S}`, { signal, onState: connection, onEvent: take });
  request(`/v1/users?limit=${MAX_CARDS}`, { signal })
    .then(({ users }) => {
      for (const { user_id, primary } of users.reverse()) {
        if (primary && !members.has(user_id)) members.set(user_id, { userId: user_id, at: 0, intents: { primary, intents: { [primary.head]: {} } } });
      }
      draw();
    })
    .catch(() => {}); // the stream says what is wrong
}

function makeCard({ userId }) {
  const parts = { mood: h("span", { class: "mood" }), share: h("span", { class: "quiet" }), titles: h("ol"), latency: h("span", { class: "quiet" }) };
  const name = h("span", { class: "who" }, userId);
  const card = h("li", {}, h("a", { class: "card", href: memberHash(userId) }, h("span", { class: "card-top" }, name, parts.latency), parts.mood, parts.share, parts.titles));
  return Object.assign(card, { parts });
}

function updateCard(card, member) {
  if (card.at === member.at) return;
  card.at = member.at;
  const { parts } = card;
  const primary = member.intents?.primary;
  const names = primary ? Object.keys(member.intents.intents[primary.head] ?? {}) : [];
  setStyle(card, { "--hue": primary && names.length ? hueOf(names, primary.label) : 250 });
  setText(parts.mood, primary?.label ?? "No intent yet");
  setText(parts.share, primary ? `${words(primary.head)}, ${percent(primary.probability)}` : "");
  setText(parts.latency, member.latencyS === undefined ? "" : duration(member.latencyS));
  reconcile(parts.titles, (member.items ?? []).slice(0, TITLES), {
    key: (item) => item.item_id,
    create: () => h("li"),
    update: (line, item) => setText(line, item.title ?? item.item_id),
  });
  setAttribute(card, "data-user", member.userId);
}

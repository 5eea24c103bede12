// Many members at once, as their plays come in.

import { path, request } from "./api.js";
import { h, reconcile, setAttribute, setStyle, setText } from "./dom.js";
import { follow } from "./events.js";
import { coverage, duration, intentName, otherIntents, percent, plural, whoseMembers, words } from "./format.js";
import { hueOf } from "./hues.js";
import { memberHash } from "./member_view.js";

const MAX_CARDS = 24;
const TITLES = 3;
const MOODS = 5;
const PER_S = 20;
const COVERAGE_LISTS = 500;
const DRAW_MS = 250;

/** The view, until `signal` is aborted. */
export function everyoneView(root, { health, signal, connection }) {
  const slots = []; // a member keeps its place; one that comes later takes that of the member that changed longest ago
  const members = new Map();
  const lists = [];
  let [isPaused, skipped, seen] = [false, 0, 0];

  const cards = h("ul", { class: "cards", data: { testid: "everyone" } });
  const pause = h(
    "button",
    { type: "button", class: "plain", "aria-pressed": "false", on: { click: togglePause } },
    "Pause",
  );
  const whose = h("p", { class: "quiet" });
  const note = h("p", { class: "quiet" });
  const moods = h("div", { class: "heads" });
  const empty = h("p", { class: "empty" }, "Members appear here as their plays come.");
  root.replaceChildren(
    h("div", { class: "toolbar" }, h("h1", { tabindex: "-1" }, "Everyone, live"), pause, whose, note),
    h(
      "div",
      { class: "everyone" },
      h("section", { "aria-label": "Members" }, empty, cards),
      h(
        "section",
        { class: "panel", "aria-labelledby": "moods-title" },
        h("h2", { id: "moods-title" }, "Moods"),
        h("p", { class: "quiet" }, "For each intent, its likeliest label among the members shown"),
        moods,
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
    const member = members.get(message.user_id) ?? place({ userId: message.user_id });
    member.at = seen;
    if (kind === "intents") member.intents = message;
    else {
      member.items = message.items;
      member.latencyS = message.latency_s;
      lists.push(message.items.map((item) => item.item_id));
      if (lists.length > COVERAGE_LISTS) lists.shift();
    }
  }

  function place(member) {
    if (slots.length < MAX_CARDS) slots.push(member);
    else {
      const oldest = slots.reduce((least, each) => (each.at < least.at ? each : least));
      members.delete(oldest.userId);
      slots[slots.indexOf(oldest)] = member;
    }
    members.set(member.userId, member);
    return member;
  }

  function draw() {
    if (isPaused) return;
    empty.hidden = members.size > 0;
    const shown = slots.filter((member) => member.intents || member.items);
    reconcile(cards, shown, { key: ({ userId }) => userId, create: makeCard, update: updateCard });
    drawMoods(shown);
    setText(whose, whoseMembers(health.status?.gateway));
    setText(
      note,
      [coverage(lists), skipped ? `${plural(skipped, "update")} left out: they come faster than ${PER_S} a second` : ""]
        .filter(Boolean)
        .join(" · "),
    );
  }

  function drawMoods(shown) {
    reconcile(moods, countMoods(shown), {
      key: ({ head }) => head,
      create: ({ head }) => {
        const body = h("tbody");
        const columns = h(
          "tr",
          {},
          ["Label", "Share", "Members"].map((text) => h("th", { scope: "col" }, text)),
        );
        return Object.assign(
          h("table", { class: "bars" }, h("caption", {}, words(head)), h("thead", { class: "unseen" }, columns), body),
          { body },
        );
      },
      update: ({ body }, { labels }) =>
        reconcile(body, labels, { key: ({ label }) => label, create: makeMood, update: updateMood }),
    });
  }

  const timer = setInterval(draw, DRAW_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow(`/v1/updates?per_s=${PER_S}`, { signal, onState: connection, onEvent: take });
  recall(signal, (userId) =>
    members.has(userId) || slots.length >= MAX_CARDS ? null : place({ userId, at: 0 }),
  ).catch(() => {}); // the stream says what is wrong
}

/** Fills cards with what is known of the members that changed last, one after the other. */
async function recall(signal, place) {
  const { users } = await request(`/v1/users?limit=${MAX_CARDS}`, { signal });
  for (const { user_id: userId } of users) {
    const member = place(userId);
    if (!member) continue;
    const [intents, recommendation] = await Promise.all(
      ["intents", "recommendations"].map((kind) => request(path`/v1/users/${userId}/${kind}`, { signal })),
    );
    if (member.at) continue; // a newer message came meanwhile
    Object.assign(member, { intents, items: recommendation.items, latencyS: recommendation.latency_s, at: 0.5 });
  }
}

/** How many members have which likeliest label, by intent: the most frequent ones, in the order of the intents. */
function countMoods(members) {
  const heads = new Map();
  for (const { intents } of members) {
    if (!intents) continue;
    for (const { head, label } of [...(intents.primary ? [intents.primary] : []), ...otherIntents(intents)]) {
      if (!heads.has(head)) heads.set(head, new Map());
      const counts = heads.get(head);
      counts.set(label, {
        label,
        hue: hueOf(Object.keys(intents.intents[head]), label),
        count: (counts.get(label)?.count ?? 0) + 1,
      });
    }
  }
  return [...heads]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([head, counts]) => {
      const sorted = [...counts.values()].sort((a, b) => b.count - a.count || a.label.localeCompare(b.label));
      return { head, labels: sorted.slice(0, MOODS).map((mood) => ({ ...mood, share: mood.count / sorted[0].count })) };
    });
}

function makeMood({ label }) {
  const bar = h("span", { class: "bar" }, h("span", { class: "fill" }));
  const figure = h("td", { class: "figure" });
  return Object.assign(
    h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "track", "aria-hidden": "true" }, bar), figure),
    { bar, figure },
  );
}

function updateMood(row, { share, hue, count }) {
  setStyle(row.bar, { "--to": share, "--hue": hue });
  setText(row.figure, String(count));
}

function makeCard({ userId }) {
  const parts = {
    mood: h("span", { class: "mood" }),
    share: h("span", { class: "quiet" }),
    titles: h("ol"),
    latency: h("span", { class: "quiet" }),
  };
  const name = h("span", { class: "who" }, userId);
  const card = h(
    "li",
    {},
    h(
      "a",
      { class: "card", href: memberHash(userId) },
      h("span", { class: "card-top" }, name, parts.latency),
      parts.mood,
      parts.share,
      parts.titles,
    ),
  );
  return Object.assign(card, { parts });
}

function updateCard(card, member) {
  if (card.at === member.at) return;
  card.at = member.at;
  const { parts } = card;
  const primary = member.intents?.primary;
  const names = primary ? Object.keys(member.intents.intents[primary.head] ?? {}) : [];
  setStyle(card, { "--hue": primary && names.length ? hueOf(names, primary.label) : 250 });
  setText(parts.mood, primary ? intentName(primary) : "No intent yet");
  setText(
    parts.share,
    primary
      ? [percent(primary.probability), ...otherIntents(member.intents).map(({ label }) => label)].join(" · ")
      : "",
  );
  setText(parts.latency, member.latencyS === undefined ? "" : duration(member.latencyS));
  reconcile(parts.titles, (member.items ?? []).slice(0, TITLES), {
    key: (item) => item.item_id,
    create: () => h("li"),
    update: (line, item) => setText(line, item.title ?? item.item_id),
  });
  setAttribute(card, "data-user", member.userId);
}

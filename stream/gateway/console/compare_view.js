// Two bundles for one member, side by side: what each would show, and what each thinks the member wants.

import { path, request } from "./api.js";
import { agreement } from "./changes.js";
import { h, reconcile, setText } from "./dom.js";
import { follow } from "./events.js";
import { bundleName, duration, intentName, percent, plural, words } from "./format.js";

const SHOWN = 10;
const MAX_INTENT_ROWS = 12;

/** The view, until `signal` is aborted. */
export function compareView(root, { userId, health, signal, go, connection }) {
  const input = h("input", {
    id: "compared",
    value: userId,
    required: true,
    maxlength: "256",
    autocomplete: "off",
    spellcheck: "false",
  });
  const sides = [side("Left bundle"), side("Right bundle")];
  const verdict = h("p", { class: "lead", role: "status" });
  const intents = h("tbody");
  const heads = sides.map(() => h("th", { scope: "col" }));
  const table = h(
    "section",
    { class: "panel", "aria-labelledby": "intents-of-both", hidden: true },
    h("h2", { id: "intents-of-both" }, "Intents of both"),
    h(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": "Intents of both bundles" },
      h(
        "table",
        { class: "data" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Label"), heads, h("th", { scope: "col" }, "Difference"))),
        intents,
      ),
    ),
  );
  root.replaceChildren(
    h("h1", { tabindex: "-1" }, "Two bundles, one member"),
    h(
      "div",
      { class: "toolbar" },
      h(
        "form",
        {
          class: "field inline",
          on: { submit: (event) => (event.preventDefault(), go(compareHash(input.value.trim()))) },
        },
        h("label", { for: "compared" }, "Member"),
        input,
        h("button", { type: "submit", class: "plain" }, "Compare"),
      ),
    ),
    verdict,
    h(
      "div",
      { class: "compare" },
      sides.map(({ element }) => element),
    ),
    table,
  );
  for (const each of sides) each.select.addEventListener("change", () => choose(each));

  function choose(each) {
    each.isChosen = true;
    forget(each); // what is shown is of another bundle than the one that is named now
    draw();
    load();
  }

  // A play is two events: what comes while a load runs may be newer than its answers, so it is asked once more.
  let [loading, isStale] = [false, false];
  async function load() {
    isStale = true;
    if (loading || !userId) return;
    loading = true;
    while (isStale && !signal.aborted) {
      isStale = false;
      offer(sides, health);
      draw();
      await Promise.all(sides.map((each) => ask(each, userId, health, signal)));
      if (!signal.aborted) draw();
    }
    loading = false;
  }

  function draw() {
    const [left, right] = sides;
    showList(left, right);
    showList(right, left);
    if (left.recommendation && right.recommendation) {
      const { shared, of, isOfOnePlay } = agreement(left.recommendation, right.recommendation, SHOWN);
      const which = isOfOnePlay ? "" : " They answer different plays: what differs is not of the bundles alone.";
      const are = shared === 1 ? "is" : "are";
      setText(verdict, `${shared} of the first ${plural(of, "title")} ${are} in both lists.${which}`);
    } else setText(verdict, userId ? "" : "Name a member.");
    table.hidden = !(left.intents && right.intents);
    if (!table.hidden) showIntents(left.intents, right.intents);
  }

  function showIntents(left, right) {
    heads.forEach((cell, at) => setText(cell, bundleName(sides[at].select.value)));
    const pairs = [];
    for (const [head, labels] of Object.entries(left.intents)) {
      for (const [label, one] of Object.entries(labels)) {
        const other = right.intents[head]?.[label];
        if (other !== undefined) pairs.push({ head, label, one, other });
      }
    }
    pairs.sort((a, b) => Math.max(b.one, b.other) - Math.max(a.one, a.other));
    reconcile(intents, pairs.slice(0, MAX_INTENT_ROWS), {
      key: ({ head, label }) => `${head} ${label}`,
      create: ({ head, label }) => {
        const cells = [h("td"), h("td"), h("td")];
        return Object.assign(
          h("tr", {}, h("th", { scope: "row" }, label, " ", h("span", { class: "quiet" }, words(head))), cells),
          { fields: cells },
        );
      },
      update: ({ fields }, { one, other }) => {
        const points = Math.round((other - one) * 100);
        const by = points ? `${points > 0 ? "+" : "−"}${plural(Math.abs(points), "point")}` : "same";
        [percent(one), percent(other), by].forEach((text, at) => setText(fields[at], text));
      },
    });
  }

  load();
  if (userId) follow(path`/v1/users/${userId}/stream`, { signal, onState: connection, onEvent: load });
  let told = "";
  health.addEventListener(
    "status",
    () => {
      const now = JSON.stringify([versionsOf(health), health.problem?.message]);
      if (now === told) return;
      told = now;
      load();
    },
    { signal },
  );
}

/** Where a member is compared. */
export function compareHash(userId) {
  return `#/compare/${encodeURIComponent(userId)}`;
}

function side(name) {
  const id = `bundle-${name.split(" ")[0].toLowerCase()}`;
  const select = h("select", { id });
  const when = h("p", { class: "quiet" });
  const mood = h("p", { class: "mood" });
  const items = h("ol", { class: "ranked" });
  const element = h(
    "section",
    { class: "panel", "aria-label": name },
    h("div", { class: "field inline" }, h("label", { for: id }, name), select),
    mood,
    when,
    items,
  );
  return forget({ element, select, when, mood, items, isChosen: false });
}

/** Takes away what is known of a side's bundle. */
function forget(each) {
  return Object.assign(each, { recommendation: null, intents: null, problem: "" });
}

/** The announced bundles, newest first, and the serving one. */
function versionsOf(health) {
  const versions = [...new Set((health.status?.announcements ?? []).map(({ bundle }) => bundle))].reverse();
  const serving = health.servingBundle();
  if (serving && !versions.includes(serving)) versions.unshift(serving);
  return { versions, serving };
}

/** Offers the announced bundles; at first the serving one on the right, and the one before on the left. */
function offer(sides, health) {
  const { versions, serving } = versionsOf(health);
  for (const [at, { select, isChosen }] of sides.entries()) {
    const before = select.value;
    const chosen = isChosen ? before : null;
    reconcile(select, versions, {
      key: (version) => version,
      create: (version) => h("option", { value: version }),
      update: (option, version) => setText(option, version === serving ? `${version} (serving)` : version),
    });
    const place = versions.indexOf(serving);
    select.value = chosen ?? (at === 1 ? serving : (versions[place + 1] ?? serving)) ?? "";
    if (select.value !== before) forget(sides[at]);
  }
}

/** Asks for a side's list and intents. An answer about a bundle that is not the chosen one by then is dropped. */
async function ask(each, userId, health, signal) {
  const bundle = each.select.value;
  if (!bundle) {
    forget(each).problem = whyNoBundle(health);
    return;
  }
  try {
    const [recommendation, intents] = await Promise.all([
      request(path`/v1/users/${userId}/recommendations?bundle=${bundle}`, { signal }),
      request(path`/v1/users/${userId}/intents?bundle=${bundle}`, { signal }),
    ]);
    if (each.select.value === bundle) Object.assign(each, { recommendation, intents, problem: "" });
  } catch (error) {
    if (signal.aborted || each.select.value !== bundle) return;
    forget(each).problem =
      error.type === "unknown-bundle"
        ? "This bundle has answered no play of this member. The gateway keeps the newest answer of the serving bundle and of the one before it."
        : error.type === "unknown-member"
          ? "Nothing is known of this member yet: play a title first."
          : error.message;
  }
}

function whyNoBundle({ status, problem }) {
  if (status) return "No bundle is announced yet.";
  if (problem?.type === "operators-only") return "Which bundles there are needs an operator's token.";
  return problem?.message ?? "";
}

function showList(each, other) {
  const { recommendation, intents, problem } = each;
  const primary = intents?.primary;
  setText(each.mood, primary ? `${intentName(primary)}, ${percent(primary.probability)}` : "");
  setText(
    each.when,
    problem ||
      (recommendation
        ? `Answer to play ${recommendation.event_id}, after ${duration(recommendation.latency_s)}`
        : "Loading…"),
  );
  const ranks = new Map((other.recommendation?.items ?? []).map(({ item_id }, at) => [item_id, at + 1]));
  const items = (recommendation?.items ?? [])
    .slice(0, SHOWN)
    .map((item, at) => ({ item, rank: at + 1, there: ranks.get(item.item_id) }));
  reconcile(each.items, items, {
    key: ({ item }) => item.item_id,
    create: () => {
      const parts = [h("span", { class: "name" }), h("span", { class: "quiet" })];
      return Object.assign(h("li", {}, parts), { parts });
    },
    update: ({ parts }, { item, rank, there }) => {
      setText(parts[0], item.title ?? item.item_id);
      const by = there - rank;
      setText(
        parts[1],
        !other.recommendation
          ? ""
          : !there
            ? "only here"
            : by === 0
              ? "same place"
              : `${plural(Math.abs(by), "place")} ${by > 0 ? "higher" : "lower"} here`,
      );
    },
  });
}

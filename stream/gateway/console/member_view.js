// One member: the home screen, the intents, the plays; to watch, or to be.

import { path, request } from "./api.js";
import { rowsOf } from "./changes.js";
import { showDetails } from "./details.js";
import { h, setAttribute, setStyle, setText } from "./dom.js";
import { follow } from "./events.js";
import { bundleName, duration, intentName, otherIntents, percent, words } from "./format.js";
import { hueOf } from "./hues.js";
import { intentsPanel } from "./intents_panel.js";
import { MemberState } from "./member_state.js";
import { picker } from "./picker.js";
import { followMarks, itemPlayed, makePlay, parseAttributes, randomId, send, unsent } from "./player.js";
import { playsPanel } from "./plays_panel.js";
import { rowsPanel } from "./rows_panel.js";

const OWN_MEMBERS = "intentrec-own-members";
const SPOKEN_EVERY_MS = 3000;

/** The view of a member, until `signal` is aborted. `go(hash)` goes to another view, `connection` shows how the stream is. */
export function memberView(root, { userId, signal, go, connection, announce }) {
  const state = new MemberState(userId, itemPlayed);
  for (const { play: waiting, item, sentMs, state: was, detail } of unsent(userId)) {
    state.begin(waiting.event_id, item, sentMs);
    state.mark(waiting.event_id, was, detail);
  }
  const own = ownMembers();
  let isPlayed = own.includes(userId);

  const hero = heroOf();
  const rows = rowsPanel(pick);
  const intents = intentsPanel();
  const plays = playsPanel();
  const titles = picker(pick, signal);
  const bar = memberBar({ userId, isPlayed, go, onPlayed: (played) => ((isPlayed = played), draw()) });
  root.replaceChildren(
    bar,
    hero.element,
    h(
      "div",
      { class: "member" },
      rows.element,
      h("div", { class: "rail" }, intents.element, plays.element),
      titles.element,
    ),
  );

  function draw() {
    const verb = isPlayed ? "Play" : "Details of";
    hero.update(state, isPlayed);
    rows.update(state.recommendation, state.intents?.intents, verb);
    intents.update(state.intents, state.intentsBefore);
    plays.update(state.plays);
    titles.update(state.intents?.intents, verb);
  }

  function pick(item) {
    if (isPlayed) play(item);
    else showDetails(item, { userId, onPlay: play });
  }

  function play(item) {
    const made = makePlay(userId, item.item_id, parseAttributes(titles.attributes()));
    const [named, nowMs] = [{ item_id: item.item_id, title: item.title ?? item.item_id }, performance.now()];
    state.begin(made.event_id, named, nowMs);
    send(made, named, nowMs);
    draw();
  }

  followMarks(({ play: sent, state: now, detail }) => {
    state.mark(sent.event_id, now, detail);
    draw();
  }, signal);

  let spokenMs = 0;
  function speak() {
    const { newest } = state;
    if (!newest?.isOwn || performance.now() - spokenMs < SPOKEN_EVERY_MS) return;
    spokenMs = performance.now();
    const first = rowsOf(state.recommendation)[0];
    announce(
      `${newest.item.title} played. Wants now: ${state.intents?.primary ? intentName(state.intents.primary) : "nothing yet"}. First row: ${first?.title ?? "none"}.`,
    );
  }

  // Intents and list of one play come one after the other: they are drawn as one picture.
  let drawing = false;
  function drawSoon() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      if (signal.aborted) return;
      draw();
      speak();
      const drawn = state.untimed();
      if (drawn.length) setTimeout(() => time(drawn)); // once the frame is painted
    });
  }

  function time(drawn) {
    state.time(drawn, performance.now());
    if (!signal.aborted) draw();
  }

  follow(path`/v1/users/${userId}/stream`, {
    signal,
    onState: connection,
    onEvent: (kind, message) => state.take(kind, message) && drawSoon(),
  });
  showPopular();
  draw();

  async function showPopular() {
    try {
      const popular = await request(path`/v1/users/${userId}/recommendations`, { signal });
      if (!state.recommendation) state.take("recommendations", popular);
      draw();
    } catch (error) {
      if (!signal.aborted && error.isPassing && !state.recommendation) setTimeout(showPopular, 2000);
    }
  }
}

function heroOf() {
  const lead = h("p", { class: "lead" });
  const label = h("h1", { tabindex: "-1", data: { testid: "primary" } });
  const about = h("p", { class: "about" });
  const latency = h("dd", { data: { testid: "latency" } });
  const pipeline = h("dd");
  const bundle = h("dd");
  const figure = (name, value) => h("div", {}, h("dt", {}, name), value);
  const element = h(
    "section",
    { class: "hero", "aria-label": "Now" },
    h("div", {}, lead, label, about),
    h(
      "dl",
      { class: "figures" },
      figure("Play to answer", pipeline),
      figure("Click to screen", latency),
      figure("Bundle", bundle),
    ),
  );
  return {
    element,
    update({ intents, recommendation, plays, newest }, isPlayed) {
      const primary = intents?.primary;
      const names = primary ? Object.keys(intents.intents[primary.head]) : [];
      setStyle(element, { "--hue": primary ? hueOf(names, primary.label) : 250 });
      setText(lead, primary ? "Wants now" : "Nothing is known yet");
      setText(label, primary ? intentName(primary) : "Popular titles for a start");
      setText(
        about,
        primary
          ? aboutIntents(intents)
          : `The first play opens a session. ${isPlayed ? "Press a title." : "Be this member, and press a title."}`,
      );
      const ownPlay = plays.find((play) => play.seenAfterS !== undefined);
      setText(latency, duration(ownPlay?.seenAfterS));
      setText(pipeline, duration(newest?.latencyS));
      setText(bundle, bundleName(intents?.bundle ?? recommendation?.bundle));
      setAttribute(element, "data-known", Boolean(primary));
    },
  };
}

function aboutIntents(intents) {
  const { primary, shifted } = intents;
  const first = `${words(primary.head)}, ${percent(primary.probability)} likely for the next play${shifted ? "; it has just changed" : ""}`;
  return [
    first,
    ...otherIntents(intents).map((other) => `${words(other.head)}: ${other.label} ${percent(other.probability)}`),
  ].join(" · ");
}

function memberBar({ userId, isPlayed, go, onPlayed }) {
  const input = h("input", {
    id: "member",
    value: userId,
    autocomplete: "off",
    spellcheck: "false",
    list: "members",
    maxlength: "256",
    required: true,
  });
  const switched = h("input", { type: "checkbox", role: "switch", id: "be" });
  switched.checked = isPlayed;
  switched.addEventListener("change", () => {
    keepOwn(userId, switched.checked);
    onPlayed(switched.checked);
  });
  const known = h("datalist", { id: "members" });
  recentMembers().then((members) => known.replaceChildren(...members.map((member) => h("option", { value: member }))));
  return h(
    "div",
    { class: "toolbar" },
    h(
      "form",
      {
        class: "field inline",
        on: { submit: (event) => (event.preventDefault(), go(memberHash(input.value.trim()))) },
      },
      h("label", { for: "member" }, "Member"),
      input,
      known,
      h("button", { type: "submit", class: "plain" }, "Show"),
    ),
    h("button", { type: "button", class: "plain", on: { click: () => go(newMember()) } }, "New member"),
    h("label", { class: "switch", for: "be" }, switched, h("span", {}, "Be this member")),
  );
}

async function recentMembers() {
  try {
    return (await request("/v1/users?limit=50")).users.map(({ user_id }) => user_id);
  } catch {
    return []; // a member's own token cannot list others
  }
}

/** Where a member is shown. */
export function memberHash(userId) {
  return `#/member/${encodeURIComponent(userId)}`;
}

/** Where a member is shown that nobody has seen, and that this browser plays. */
export function newMember() {
  const userId = `guest-${randomId().slice(0, 6)}`;
  keepOwn(userId, true);
  return memberHash(userId);
}

function ownMembers() {
  try {
    return JSON.parse(sessionStorage.getItem(OWN_MEMBERS)) ?? [];
  } catch {
    return [];
  }
}

function keepOwn(userId, isOwn) {
  const others = ownMembers().filter((each) => each !== userId);
  sessionStorage.setItem(OWN_MEMBERS, JSON.stringify(isOwn ? [...others, userId] : others));
}

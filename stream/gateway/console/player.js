// Sends plays: the same one until the gateway has taken or refused it, because a play sent again unchanged changes nothing.

import { request } from "./api.js";
import { pause } from "./events.js";

const RETRY_MS = 1000;
const ATTRIBUTES = "intentrec-attributes";

/** A play of an item, as of now. `attributes`: text by name; `action` and `duration_s` are fields of their own. */
export function makePlay(userId, itemId, attributes) {
  const { action, duration_s: seconds, ...context } = attributes;
  const play = { event_id: `console-${randomId()}`, user_id: userId, item_id: itemId, ts: Date.now() };
  if (action) play.action = action;
  if (Number.isFinite(Number(seconds)) && seconds !== undefined) play.duration_s = Number(seconds);
  if (Object.keys(context).length) play.context = context;
  return play;
}

/** The plays made on this page, by event id. They are the page's and not a view's: one that waits is sent whatever is looked at. */
const made = new Map();
const marks = new EventTarget();

/** Sends a play of `item` until it is accepted or refused; followMarks tells what becomes of it. `nowMs`: when it was made. */
export async function send(play, item, nowMs) {
  const sending = { play, item, sentMs: nowMs, state: "sending", detail: "" };
  made.set(play.event_id, sending);
  const mark = (state, detail = "") => {
    Object.assign(sending, { state, detail });
    marks.dispatchEvent(new CustomEvent("mark", { detail: sending }));
  };
  for (;;) {
    try {
      await request("/v1/plays", { body: play });
      return mark("sent");
    } catch (error) {
      if (!error.isPassing) return mark("refused", error.message);
      mark("waiting", error.message);
      await pause(RETRY_MS);
    }
  }
}

/** Calls `listener` with each play whose state changes, as {play, item, sentMs, state, detail}, until `signal` is aborted. */
export function followMarks(listener, signal) {
  marks.addEventListener("mark", ({ detail }) => listener(detail), { signal });
}

/** A member's plays that are not taken yet, oldest first. */
export function unsent(userId) {
  return [...made.values()].filter(
    ({ play, state }) => play.user_id === userId && (state === "sending" || state === "waiting"),
  );
}

/** The item of a play that was made on this page. */
export function itemPlayed(eventId) {
  return made.get(eventId)?.item;
}

/** A short text that nobody else has. crypto.randomUUID is for secure origins alone. */
export function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads lines of name=value. A number or true and false are what they are, as in JSON. */
export function parseAttributes(text) {
  const entries = text
    .split(/[\n,]/)
    .map((line) => line.split("="))
    .filter(([name, ...rest]) => name.trim() && rest.length)
    .map(([name, ...rest]) => [name.trim(), valueOf(rest.join("=").trim())]);
  return Object.fromEntries(entries.filter(([, value]) => value !== ""));
}

function valueOf(text) {
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** The attributes that were typed last. */
export function keptAttributes() {
  return localStorage.getItem(ATTRIBUTES) ?? "";
}

/** Keeps them in this browser. */
export function keepAttributes(text) {
  localStorage.setItem(ATTRIBUTES, text);
}

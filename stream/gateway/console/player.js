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

/** Sends a play until it is accepted or refused; `mark(state, detail)` is told what becomes of it. */
export async function send(play, mark, signal) {
  while (!signal.aborted) {
    try {
      await request("/v1/plays", { body: play, signal });
      mark("sent");
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (!error.isPassing) {
        mark("refused", error.message);
        return;
      }
      mark("waiting", error.message);
      await pause(RETRY_MS, signal);
    }
  }
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

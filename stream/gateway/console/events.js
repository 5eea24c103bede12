// Server-sent events over fetch. EventSource sends no token, and gives up for good on the first status that is not 200.

import { headers, problemOf } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
/** Heartbeats come every 15 s: a stream that is silent for longer than two of them is dead, and its socket does not know it. */
const SILENCE_MS = 40000;
/** A browser opens six connections to a host: a tab that nobody looks at gives its stream back after a while. */
const UNSEEN_MS = 60000;

/** Cuts text into events: {id, event, data}. An `id` stays until the next one, as in EventSource. */
export class EventParser {
  #rest = "";
  #id = "";
  #event = "";
  #data = [];

  /** The events that a piece of text completes. */
  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#take(line)).filter((event) => event !== null);
  }

  #take(line) {
    if (line === "") {
      const whole = this.#data.length
        ? { id: this.#id, event: this.#event || "message", data: this.#data.join("\n") }
        : null;
      this.#event = "";
      this.#data = [];
      return whole;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id") this.#id = value;
    return null;
  }
}

/**
 * Reads a stream until `signal` is aborted, and connects again whenever it ends. `onEvent(name, data)` gets each event, `onState` is
 * called with "connecting", "live" or "away", and with the problem where the gateway named one.
 */
export async function follow(path, { onEvent, onState, signal }) {
  let lastId = "";
  let waitMs = FIRST_WAIT_MS;
  onState("connecting");
  while (!signal.aborted) {
    await seen(signal);
    let problem = null;
    try {
      for await (const { id, event, data } of events(path, lastId, signal, () => onState("live"))) {
        waitMs = FIRST_WAIT_MS;
        if (id) lastId = id;
        if (event !== "bye") onEvent(event, JSON.parse(data));
      }
    } catch (error) {
      if (error.status) problem = error;
    }
    if (signal.aborted) return;
    onState("away", problem);
    // A problem such as a missing right does not pass by itself; it is asked again, but seldom.
    await pause(problem && !problem.isPassing ? LONGEST_WAIT_MS * 2 : waitMs * (0.5 + Math.random() / 2), signal);
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  }
}

async function* events(path, lastId, signal, onOpen) {
  const watchdog = new AbortController();
  const stop = () => watchdog.abort();
  const unwatch = whenUnseen(stop);
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const known = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await fetch(path, {
      headers: { ...headers(), ...known, Accept: "text/event-stream" },
      cache: "no-store",
      signal: watchdog.signal,
    });
    if (!response.ok) throw await problemOf(response);
    onOpen();
    const parser = new EventParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
    unwatch();
    signal.removeEventListener("abort", stop);
    stop();
  }
}

/** Calls `listener` once the tab has been hidden for a while; returns what ends the watch. */
function whenUnseen(listener) {
  let timer = null;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(listener, UNSEEN_MS);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
}

/** Resolves while the tab is not hidden, or when `signal` is aborted. */
function seen(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
    look();
  });
}

/** Resolves after some time, or at once when `signal` is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    }
    signal?.addEventListener("abort", done);
  });
}

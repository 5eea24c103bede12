// What the page knows of one member: the newest messages, those before, and the plays since the page follows this member.

import { intentChanges, listChanges } from "./changes.js";

const MAX_PLAYS = 60;

/** Takes messages of a member's stream and plays sent from here. */
export class MemberState {
  intents = null;
  intentsBefore = null;
  recommendation = null;
  plays = [];

  constructor(userId) {
    this.userId = userId;
  }

  /** Takes a message. Returns false for one that repeats what is known. */
  take(kind, message, nowMs) {
    return kind === "intents"
      ? this.#takeIntents(message, nowMs)
      : kind === "recommendations" && this.#takeRecommendation(message, nowMs);
  }

  #takeIntents(message, nowMs) {
    if (isOld(this.intents, message)) return false;
    const before = this.intents;
    [this.intentsBefore, this.intents] = [before, message];
    this.#entry(message, nowMs, {
      opened: message.session_opened,
      closed: message.closed_session,
      shifted: message.shifted,
      primary: message.primary,
      intentChanges: intentChanges(before, message),
    });
    return true;
  }

  #takeRecommendation(message, nowMs) {
    if (isOld(this.recommendation, message)) return false;
    const before = this.recommendation;
    this.recommendation = message;
    if (message.event_id === undefined) return true; // what is popular, of a member nobody has seen
    const entry = this.#entry(message, nowMs, { listChanges: listChanges(before?.items, message.items) });
    const at = before?.items.findIndex(({ item_id }) => item_id === entry.item?.item_id) ?? -1;
    if (at >= 0) entry.foundAt = at + 1;
    return true;
  }

  /** The entry of the play that a message answers. */
  #entry(message, nowMs, changed) {
    let entry = this.plays.find(({ eventId }) => eventId === message.event_id);
    if (!entry) {
      entry = { eventId: message.event_id };
      this.plays.unshift(entry);
    }
    Object.assign(entry, changed, { state: "answered", eventTime: message.event_time, latencyS: message.latency_s });
    entry.coalesced = message.coalesced?.plays ?? null;
    if (entry.sentMs !== undefined && entry.seenAfterS === undefined) entry.seenAfterS = (nowMs - entry.sentMs) / 1000;
    // A play that was answered together with a later one has no message of its own.
    for (const other of this.plays) if (other.state === "sent" && other.sentMs < entry.sentMs) other.state = "answered";
    this.plays.length = Math.min(this.plays.length, MAX_PLAYS);
    return entry;
  }

  /** A play that is being sent from here. */
  begin(eventId, item, nowMs) {
    this.plays.unshift({ eventId, item, isOwn: true, state: "sending", sentMs: nowMs });
  }

  /** What became of it: waiting, sent or refused. An answer that came first stands. */
  mark(eventId, state, detail = "") {
    const entry = this.plays.find((play) => play.eventId === eventId);
    if (entry && entry.state !== "answered") Object.assign(entry, { state, detail });
  }

  /** The newest play that was answered. */
  get newest() {
    return this.plays.find(({ state }) => state === "answered") ?? null;
  }
}

function isOld(known, message) {
  if (!known?.source || !message.source) return false;
  return known.source.partition === message.source.partition && message.source.offset <= known.source.offset;
}

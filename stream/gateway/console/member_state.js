// What the page knows of one member: the newest messages, those before, and the plays since the page follows this member.

import { intentChanges, listChanges } from "./changes.js";

const MAX_PLAYS = 60;

/** Takes messages of a member's stream and plays sent from here. */
export class MemberState {
  intents = null;
  intentsBefore = null;
  recommendation = null;
  plays = [];

  /** `itemOf(eventId)`: the item of a play that was sent from here, as {item_id, title}. */
  constructor(userId, itemOf = () => undefined) {
    this.userId = userId;
    this.itemOf = itemOf;
  }

  /** Takes a message. Returns false for one that repeats what is known. */
  take(kind, message) {
    return kind === "intents"
      ? this.#takeIntents(message)
      : kind === "recommendations" && this.#takeRecommendation(message);
  }

  #takeIntents(message) {
    if (isOld(this.intents, message)) return false;
    const before = this.intents;
    [this.intentsBefore, this.intents] = [before, message];
    this.#entry(message, {
      opened: message.session_opened,
      closed: message.closed_session,
      shifted: message.shifted,
      primary: message.primary,
      intentChanges: intentChanges(before, message),
    });
    return true;
  }

  #takeRecommendation(message) {
    if (isOld(this.recommendation, message)) return false;
    const before = this.recommendation;
    this.recommendation = message;
    if (message.event_id === undefined) return true; // what is popular, of a member nobody has seen
    const entry = this.#entry(message, { listChanges: listChanges(before?.items, message.items) });
    const at = before?.items.findIndex(({ item_id }) => item_id === entry.item?.item_id) ?? -1;
    if (at >= 0) entry.foundAt = at + 1;
    return true;
  }

  /** The entry of the play that a message answers. */
  #entry(message, changed) {
    let entry = this.plays.find(({ eventId }) => eventId === message.event_id);
    if (!entry) {
      entry = { eventId: message.event_id, item: this.itemOf(message.event_id) };
      this.plays.unshift(entry);
    }
    Object.assign(entry, changed, { state: "answered", eventTime: message.event_time, latencyS: message.latency_s });
    entry.source = message.source;
    entry.coalesced = message.coalesced?.plays ?? null;
    // A play that was answered together with a later one has no message of its own.
    for (const other of this.plays) if (other.state === "sent" && other.sentMs < entry.sentMs) other.state = "answered";
    this.plays.length = Math.min(this.plays.length, MAX_PLAYS);
    return entry;
  }

  /** A play that is being sent from here. */
  begin(eventId, item, nowMs) {
    this.plays.unshift({ eventId, item, isOwn: true, state: "sending", sentMs: nowMs });
  }

  /** The plays sent from here that are not timed yet, and whose intents and list, or those of a later play, are known. */
  untimed() {
    return this.plays.filter(
      ({ sentMs, seenAfterS, source }) =>
        sentMs !== undefined &&
        seenAfterS === undefined &&
        isOld(this.intents, { source }) &&
        isOld(this.recommendation, { source }),
    );
  }

  /** Plays whose intents and list are on the screen now. */
  time(plays, nowMs) {
    for (const entry of plays) entry.seenAfterS ??= (nowMs - entry.sentMs) / 1000;
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

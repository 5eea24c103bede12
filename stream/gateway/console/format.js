// Numbers, times and names as people read them.

const NOTHING = "–";

/** A share as a percentage: 0.324 is 32 %. */
export function percent(share, digits = 0) {
  return Number.isFinite(share) ? `${(share * 100).toFixed(digits)} %` : NOTHING;
}

/** Seconds, in the unit that fits. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NOTHING;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A count or a rate. */
export function number(value, digits = 0) {
  return Number.isFinite(value)
    ? value.toLocaleString("en-GB", { maximumFractionDigits: digits, minimumFractionDigits: digits })
    : NOTHING;
}

/** The time of day of a moment in milliseconds. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

/** A moment in ISO 8601 as date and time, in UTC. */
export function moment(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return String(iso);
  return at.toLocaleString("en-GB", {
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    timeZone: "UTC",
  });
}

/** The short name of a bundle. */
export function bundleName(version) {
  return version ? version.slice(0, 9) : "none";
}

/** A name such as because_you_played or genre as words. */
export function words(name) {
  const text = String(name).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A label of an intent by itself. A label without letters says nothing without its intent: "Rating 3". */
export function intentName({ head, label }) {
  return /\p{L}/u.test(label) ? label : `${words(head)} ${label}`;
}

/** The likeliest label of each intent but the primary one, by weight, as {head, label, probability}. */
export function otherIntents({ intents, weights, primary }) {
  return Object.keys(intents)
    .filter((head) => head !== primary?.head && Object.keys(intents[head]).length)
    .sort((a, b) => (weights?.[b] ?? 0) - (weights?.[a] ?? 0))
    .map((head) => {
      const [label, probability] = Object.entries(intents[head]).reduce((best, each) =>
        each[1] > best[1] ? each : best,
      );
      return { head, label, probability };
    });
}

/** How many different titles lists have, lists of item ids, and which share of all their places that is; "" without lists. */
export function coverage(lists) {
  const places = lists.flat();
  if (!places.length) return "";
  const titles = new Set(places).size;
  return `${plural(titles, "different title")} in ${plural(places.length, "place")} of the last ${plural(lists.length, "list")} (${percent(titles / places.length)})`;
}

/** Whose members a gateway shows, by GET /v1/status: each of several gateways has a part of them. */
export function whoseMembers(gateway) {
  if (!gateway) return "";
  return gateway.gateways > 1
    ? `Members of this gateway: each of the ${number(gateway.gateways)} gateways shows its own`
    : "All members: there is one gateway";
}

/** "1 play", "2 plays". */
export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

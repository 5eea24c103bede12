// The pipeline's figures over time, made of the answers of GET /v1/status: counters become rates, and survive a restart.

const SPAN_MS = 10 * 60 * 1000;
/** Live quality is that of the plays of the last minute: fewer say little, more hide what a swap did. */
const QUALITY_SPAN_MS = 60 * 1000;
const RATE_SPAN_MS = 5000;
const LEAST_JUDGED = 20;

const JUDGED = "intentrec_judged_plays_total";
const HITS = {
  model: "intentrec_judged_hits_total",
  popular: "intentrec_judged_popular_hits_total",
  markov: "intentrec_judged_markov_hits_total",
};
const STAGE_SUM = "intentrec_stage_seconds_sum";
const COUNTERS = ["intentrec_plays_consumed_total", JUDGED, ...Object.values(HITS), STAGE_SUM];

/** Collects statuses and answers with figures; sends "status" after each. Times are those of the browser, in milliseconds. */
export class Health extends EventTarget {
  #counters = new Map();
  #seen = new Set();
  samples = [];
  swaps = [];
  status = null;
  problem = null;

  /** Takes one answer of GET /v1/status. */
  take(status, nowMs) {
    this.status = status;
    const grown = {};
    for (const process of status.processes) {
      for (const name of COUNTERS) {
        for (const { labels, value } of process.metrics?.[name] ?? [])
          this.#count(grown, process.url, name, labels, value);
      }
    }
    const before = this.samples.at(-1)?.totals ?? {};
    const totals = { ...before };
    for (const [key, more] of Object.entries(grown)) totals[key] = (totals[key] ?? 0) + more;
    this.#markSwaps(status, nowMs);
    this.samples.push({ t: nowMs, totals, ...this.#readings(status) });
    while (this.samples.length > 2 && nowMs - this.samples[0].t > SPAN_MS) this.samples.shift();
    const sample = this.samples.at(-1);
    sample.playsPerS = status.processes.length
      ? this.#rate("intentrec_plays_consumed_total", nowMs)
      : status.updates.per_s;
    sample.quality = this.quality();
    this.problem = null;
    this.dispatchEvent(new Event("status"));
  }

  /** There was no answer. */
  fail(problem) {
    this.problem = problem;
    this.dispatchEvent(new Event("status"));
  }

  /** A counter that fell belongs to a process that began anew. The first value of a process is where counting begins. */
  #count(grown, url, name, labels, value) {
    const series = JSON.stringify([url, name, labels]);
    const last = this.#counters.get(series);
    this.#counters.set(series, value);
    const isNewProcess = !this.#seen.has(url);
    const more = last === undefined ? (isNewProcess ? 0 : value) : value >= last ? value - last : value;
    for (const key of keysOf(name, labels)) grown[key] = (grown[key] ?? 0) + more;
  }

  #markSwaps(status, nowMs) {
    for (const process of status.processes) if (process.ready !== null) this.#seen.add(process.url);
    const serving = this.servingBundle();
    const last = this.swaps.at(-1);
    if (serving && serving !== last?.bundle) this.swaps.push({ t: nowMs, bundle: serving, isFirst: !last });
  }

  #readings(status) {
    return {
      p50: status.updates.latency_p50_s,
      p99: status.updates.latency_p99_s,
      lag: this.total("intentrec_lag_plays"),
    };
  }

  /** The sum of a gauge or counter over all processes; null where none has it. */
  total(name) {
    let sum = null;
    for (const process of this.status?.processes ?? []) {
      for (const { value } of process.metrics?.[name] ?? []) if (Number.isFinite(value)) sum = (sum ?? 0) + value;
    }
    return sum;
  }

  /** The largest value of a gauge over all processes; null where none has it. */
  largest(name) {
    const values = (this.status?.processes ?? []).flatMap((process) =>
      (process.metrics?.[name] ?? []).map(({ value }) => value),
    );
    return values.length ? Math.max(...values.filter(Number.isFinite)) : null;
  }

  /** The version that workers serve; without metrics of workers, the one announced last. */
  servingBundle() {
    for (const process of this.status?.processes ?? []) {
      const serving = (process.metrics?.intentrec_bundle_info ?? []).find(({ value }) => value === 1);
      if (serving) return serving.labels.bundle;
    }
    return this.status?.bundle?.version ?? null;
  }

  /** HR@10 of model and baselines over the last minute, and the number of plays judged. */
  quality() {
    const from = this.#from(QUALITY_SPAN_MS);
    const judged = this.#grownSince(from, JUDGED);
    if (judged < LEAST_JUDGED) return null;
    const ratio = (name) => this.#grownSince(from, name) / judged;
    return { judged, model: ratio(HITS.model), popular: ratio(HITS.popular), markov: ratio(HITS.markov) };
  }

  /** HR@10 by bundle since the page was opened. */
  qualityOf(bundle) {
    const totals = this.samples.at(-1)?.totals ?? {};
    const judged = totals[`${JUDGED} ${bundle}`] ?? 0;
    return judged < LEAST_JUDGED ? null : { judged, model: totals[`${HITS.model} ${bundle}`] / judged };
  }

  /** How busy each step of a micro-batch keeps its thread: seconds of work a second, over all workers. */
  stages() {
    const [from, until] = [this.#from(RATE_SPAN_MS), this.samples.at(-1)];
    const seconds = (until?.t - from?.t) / 1000;
    if (!(seconds > 0)) return [];
    return Object.keys(until.totals)
      .filter((key) => key.startsWith(`${STAGE_SUM} `))
      .map((key) => ({ stage: key.slice(STAGE_SUM.length + 1), busy: this.#grownSince(from, key) / seconds }));
  }

  #from(spanMs) {
    const until = this.samples.at(-1)?.t ?? 0;
    return this.samples.find((sample) => until - sample.t <= spanMs);
  }

  #rate(name, nowMs) {
    const from = this.#from(RATE_SPAN_MS);
    return from && nowMs > from.t ? (this.#grownSince(from, name) * 1000) / (nowMs - from.t) : null;
  }

  #grownSince(from, key) {
    return (this.samples.at(-1)?.totals[key] ?? 0) - (from?.totals[key] ?? 0);
  }
}

function keysOf(name, labels) {
  const part = labels.bundle ?? labels.stage;
  return part === undefined ? [name] : [name, `${name} ${part}`];
}

// How the pipeline is: speed, latency, lag, live quality against baselines, the bundles, the workers.

import { lineChart } from "./chart.js";
import { h, reconcile, setStyle, setText } from "./dom.js";
import { bundleName, duration, moment, number, percent, plural, words } from "./format.js";

const MAX_BUNDLES = 8;

/** The view, until `signal` is aborted. */
export function pipelineView(root, { health, signal }) {
  const tiles = [
    tile("Plays a second", (now) => [
      number(now.playsPerS, now.playsPerS < 10 ? 1 : 0),
      `${number(health.status.updates.total)} answered since the gateway began`,
    ]),
    tile("Latency, p50", (now) => [duration(now.p50), `p99 ${duration(now.p99)}`]),
    tile("Lag", (now) => [number(now.lag), "plays that are not committed yet"]),
    tile("Live HR@10", (now) => [
      percent(now.quality?.model, 1),
      now.quality
        ? `popular ${percent(now.quality.popular, 1)}, Markov ${percent(now.quality.markov, 1)}`
        : "too few plays in the last minute",
    ]),
    tile("Bundle", () => [bundleName(health.servingBundle()), bundleAge(health)]),
    tile("Members", () => [
      number(health.total("intentrec_members") ?? health.status.gateway.members),
      `${plural(health.status.gateway.streams, "stream")} open`,
    ]),
  ];
  const charts = [
    lineChart({
      title: "Plays a second",
      write: (value) => number(value, value < 10 && !Number.isInteger(value) ? 1 : 0),
      series: [{ name: "plays", tone: "one", of: (sample) => sample.playsPerS }],
    }),
    lineChart({
      title: "Latency, play to answer",
      write: duration,
      series: [
        { name: "p99", tone: "two", of: (sample) => sample.p99 },
        { name: "p50", tone: "one", of: (sample) => sample.p50 },
      ],
    }),
    lineChart({
      title: "Live HR@10, last minute",
      write: (value) => percent(value, 1),
      series: [
        { name: "model", tone: "one", of: (sample) => sample.quality?.model },
        { name: "Markov", tone: "two", of: (sample) => sample.quality?.markov },
        { name: "popular", tone: "three", of: (sample) => sample.quality?.popular },
      ],
    }),
    lineChart({
      title: "Lag in plays",
      write: (value) => number(value),
      floor: 10,
      series: [{ name: "lag", tone: "one", of: (sample) => sample.lag }],
    }),
  ];
  const stages = barTable(
    "Steps of a micro-batch",
    "How busy each keeps its thread, over all workers: 100 % is one thread at its limit; the rest is waiting",
    ["Step", "Share", "Busy"],
  );
  const bundles = dataTable("Bundles", ["Bundle", "Announced", "Why", "HR@10 here"]);
  const processes = dataTable("Processes", ["Address", "State", "Partitions", "Recovery"]);
  const waiting = h("p", { class: "empty", role: "status" }, "Waiting for the first figures…");
  const whole = h(
    "div",
    { class: "pipeline", hidden: true },
    h(
      "ul",
      { class: "kpis" },
      tiles.map(({ element }) => element),
    ),
    h(
      "div",
      { class: "charts" },
      charts.map(({ element }) => element),
    ),
    h("div", { class: "charts" }, stages.element, bundles.element),
    processes.element,
  );
  root.replaceChildren(h("h1", { tabindex: "-1" }, "Pipeline"), waiting, whole);

  function draw() {
    if (health.problem && !health.status)
      setText(
        waiting,
        health.problem.type === "operators-only" ? "These figures need an operator's token." : health.problem.message,
      );
    if (!health.status) return;
    whole.hidden = false;
    waiting.hidden = true;
    const now = health.samples.at(-1);
    for (const each of tiles) each.update(now);
    const marks = health.swaps
      .filter(({ isFirst }) => !isFirst)
      .map(({ t, bundle }) => ({ t, label: `swap ${bundleName(bundle)}` }));
    for (const chart of charts) chart.update(health.samples, marks);
    stages.update(health.stages());
    bundles.update(bundleRows(health));
    processes.update(processRows(health));
  }

  health.addEventListener("status", draw, { signal });
  draw();
}

function bundleAge(health) {
  const created = health.largest("intentrec_bundle_created_timestamp_seconds");
  const announced = health.status.bundle && Date.parse(health.status.bundle.announced_at) / 1000;
  const since = created || announced;
  const swaps = health.total("intentrec_bundle_swaps_total");
  return since
    ? `${duration(Math.max(0, Date.now() / 1000 - since))} old${swaps ? `, ${plural(swaps, "swap")}` : ""}`
    : "none announced";
}

function bundleRows(health) {
  const serving = health.servingBundle();
  return health.status.announcements
    .slice(-MAX_BUNDLES)
    .reverse()
    .map(({ bundle, announced_at: at, reason }) => {
      const quality = health.qualityOf(bundle);
      const hits = quality ? `${percent(quality.model, 1)} of ${number(quality.judged)}` : "–";
      return [
        bundle,
        bundle === serving ? `${bundleName(bundle)} (serving)` : bundleName(bundle),
        moment(at),
        reason,
        hits,
      ];
    });
}

function processRows(health) {
  const { processes, gateway } = health.status;
  const rows = processes.map(({ url, ready, metrics }) => {
    const sum = (name) => (metrics?.[name] ?? []).reduce((all, { value }) => all + value, 0);
    const [own, open] = [sum("intentrec_partitions_assigned"), sum("intentrec_partitions_ready")];
    const [seconds, count] = [sum("intentrec_recovery_seconds_sum"), sum("intentrec_recovery_seconds_count")];
    return [
      url,
      url,
      ready ? "ready" : "not ready",
      own ? `${open} of ${own} ready` : "–",
      count
        ? `${duration(seconds / count)} a partition, ${plural(sum("intentrec_recovery_records_total"), "record")}`
        : "–",
    ];
  });
  return [
    ...rows,
    [
      gateway.address,
      `${gateway.address} (this gateway)`,
      gateway.ready ? "ready" : "not ready",
      `${gateway.partitions.length} ready`,
      `${plural(gateway.gateways, "gateway")} in the group`,
    ],
  ];
}

function tile(name, of) {
  const value = h("strong");
  const about = h("span", { class: "quiet" });
  return {
    element: h("li", {}, h("span", { class: "kpi-name" }, name), value, about),
    update(now) {
      const [text, note] = of(now);
      setText(value, text);
      setText(about, note);
    },
  };
}

function dataTable(title, columns) {
  const body = h("tbody");
  const element = h(
    "section",
    { class: "panel" },
    h("h2", {}, title),
    h(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": title },
      h(
        "table",
        { class: "data" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        body,
      ),
    ),
  );
  const update = (rows) =>
    reconcile(body, rows, {
      key: ([key]) => key,
      create: ([, , ...others]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }),
          others.map(() => h("td")),
        ),
      update: (row, [, ...texts]) => texts.forEach((text, at) => setText(row.children[at], text)),
    });
  return { element, update };
}

function barTable(title, caption, columns) {
  const body = h("tbody");
  const element = h(
    "section",
    { class: "panel" },
    h("h2", {}, title),
    h(
      "table",
      { class: "bars" },
      h("caption", { class: "quiet" }, caption),
      h(
        "thead",
        { class: "unseen" },
        h(
          "tr",
          {},
          columns.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      body,
    ),
  );
  const update = (rows) =>
    reconcile(body, rows, {
      key: ({ stage }) => stage,
      create: ({ stage }) => {
        const bar = h("span", { class: "bar" }, h("span", { class: "fill" }));
        const figure = h("td", { class: "figure" });
        return Object.assign(
          h(
            "tr",
            {},
            h("th", { scope: "row" }, words(stage)),
            h("td", { class: "track", "aria-hidden": "true" }, bar),
            figure,
          ),
          { bar, figure },
        );
      },
      update: (row, { busy }) => {
        setStyle(row.bar, { "--to": Math.min(1, busy), "--hue": 250 });
        setText(row.figure, percent(busy));
      },
    });
  return { element, update };
}

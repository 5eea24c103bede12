// A line chart over time as SVG, with a readout, marks for events, and its table.

import { h, setText, svg } from "./dom.js";
import { clock, duration } from "./format.js";

const HEIGHT = 168;
const PAD = { top: 18, right: 8, bottom: 22, left: 46 };
const LONGEST_MS = 5 * 60 * 1000;
const SHORTEST_MS = 60 * 1000;
const MAX_TABLE_ROWS = 30;

/**
 * A chart of `series`: [{name, tone, of(sample)}], of the last five minutes, or as long as there are samples. `write` turns a value into text. `update(samples, marks)`
 * draws samples {t, …} and marks {t, label}; a value that is null is a gap.
 */
export function lineChart({ title, series, write, floor = 0 }) {
  const plot = svg("svg", {
    class: "plot",
    role: "img",
    tabindex: "0",
    "aria-label": `${title}. The same figures are in the table below it.`,
  });
  const now = series.map(() => h("strong"));
  const keys = series.map((each, at) => h("li", { class: `key ${each.tone}` }, each.name, " ", now[at]));
  const when = h("span", { class: "quiet" });
  const rows = h("tbody");
  const table = h(
    "details",
    { class: "chart-table" },
    h("summary", {}, "Table"),
    h(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": `${title}, table` },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "Time"),
            series.map((each) => h("th", { scope: "col" }, each.name)),
          ),
        ),
        rows,
      ),
    ),
  );
  const element = h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("h3", {}, title), when, h("ul", { class: "keys" }, keys)),
    plot,
    table,
  );
  let [samples, marks, chosen] = [[], [], null];

  function draw() {
    const width = Math.max(240, plot.clientWidth || 480);
    const until = samples.at(-1)?.t ?? Date.now();
    const spanMs = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, until - (samples[0]?.t ?? until)));
    const shown = samples.filter((sample) => until - sample.t <= spanMs);
    const top = tidy(Math.max(floor, ...shown.flatMap((sample) => series.map((each) => each.of(sample) ?? 0))));
    const x = (t) => width - PAD.right - ((until - t) / spanMs) * (width - PAD.left - PAD.right);
    const y = (value) => HEIGHT - PAD.bottom - (value / top) * (HEIGHT - PAD.top - PAD.bottom);
    const parts = [0, top / 2, top].map((value) => [
      svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }),
      svg("text", { x: PAD.left - 8, y: y(value) + 4, "text-anchor": "end" }, write(value)),
    ]);
    for (const share of [1, 0.5, 0]) {
      const [at, anchor] = [x(until - share * spanMs), share === 1 ? "start" : share ? "middle" : "end"];
      parts.push(
        svg(
          "text",
          { x: at, y: HEIGHT - 5, "text-anchor": anchor },
          share ? `${duration((share * spanMs) / 1000)} ago` : "now",
        ),
      );
    }
    for (const mark of marks.filter(({ t }) => until - t <= spanMs && t <= until)) {
      const at = x(mark.t);
      const isLate = at > width - 90;
      parts.push(svg("line", { class: "mark", x1: at, x2: at, y1: PAD.top, y2: HEIGHT - PAD.bottom }));
      parts.push(
        svg(
          "text",
          { class: "mark", x: at + (isLate ? -5 : 5), y: PAD.top - 7, "text-anchor": isLate ? "end" : "start" },
          mark.label,
        ),
      );
    }
    for (const each of series) parts.push(svg("path", { class: `line ${each.tone}`, d: line(shown, each.of, x, y) }));
    const readout =
      chosen === null
        ? shown.at(-1)
        : shown.reduce(
            (best, sample) => (Math.abs(x(sample.t) - chosen) < Math.abs(x(best.t) - chosen) ? sample : best),
            shown[0],
          );
    if (chosen !== null && readout)
      parts.push(
        svg("line", { class: "cursor", x1: x(readout.t), x2: x(readout.t), y1: PAD.top, y2: HEIGHT - PAD.bottom }),
      );
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    plot.replaceChildren(...parts.flat());
    series.forEach((each, at) => setText(now[at], readout ? write(each.of(readout)) : write(null)));
    setText(when, chosen === null || !readout ? "" : `at ${clock(readout.t)}`);
    if (table.open) fillTable(shown);
  }

  function fillTable(shown) {
    const step = Math.ceil(shown.length / MAX_TABLE_ROWS);
    const picked = shown.filter((_, at) => (shown.length - 1 - at) % step === 0).reverse();
    rows.replaceChildren(
      ...picked.map((sample) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, clock(sample.t)),
          series.map((each) => h("td", {}, write(each.of(sample)))),
        ),
      ),
    );
  }

  function choose(at) {
    chosen = at;
    draw();
  }
  plot.addEventListener("pointermove", (event) => choose(event.clientX - plot.getBoundingClientRect().left));
  plot.addEventListener("pointerleave", () => choose(null));
  plot.addEventListener("blur", () => choose(null));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -8, ArrowRight: 8 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(Math.min(plot.clientWidth, Math.max(PAD.left, (chosen ?? plot.clientWidth) + step)));
  });
  table.addEventListener("toggle", draw);
  new ResizeObserver(draw).observe(plot);

  return {
    element,
    update(newSamples, newMarks = []) {
      [samples, marks] = [newSamples, newMarks];
      draw();
    },
  };
}

function line(samples, of, x, y) {
  let path = "";
  let isGap = true;
  for (const sample of samples) {
    const value = of(sample);
    isGap ||= !Number.isFinite(value);
    if (!Number.isFinite(value)) continue;
    path += `${isGap ? "M" : "L"}${x(sample.t).toFixed(1)} ${y(value).toFixed(1)}`;
    isGap = false;
  }
  return path;
}

/** The next of 1, 2, 5, 10, … that is not below a value. */
function tidy(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

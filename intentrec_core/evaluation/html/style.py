"""The style sheet of the report: light and dark, from a phone to a wide screen."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6570; --rule: #dde1e6; --ours: #2f6fde; --bar: #b7c0cb;
  --good: #1a7f4b; --bad: #b3362b; --whisker: #1b1f24; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --card: #1d2126; --ink: #e7eaee; --soft: #a0a9b4; --rule: #343a42; --ours: #6ea0ff; --bar: #566070;
  --good: #58c48a; --bad: #f08a7f; --whisker: #e7eaee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.25rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 20px 0 6px; }
p { margin: 6px 0 12px; max-width: 75ch; }
.lead { font-size: 1.1rem; }
.soft, caption, .label { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0 4px; font-size: .95rem; }
a { color: var(--ours); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 20px 22px; margin: 18px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 16px 0 4px; padding: 0; }
.tile { border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; background: var(--card); }
.tile strong { display: block; font-size: 1.45rem; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 6px; font-size: .92rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: middle; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
td.t { min-width: 230px; } th[scope=row] { min-width: 112px; }
.map { display: grid; grid-template-columns: minmax(0, 560px) minmax(0, 1fr); gap: 12px 32px; align-items: center;
  margin: 10px 0 16px; }
.named { display: flex; gap: 10px; align-items: center; }
ul.names { list-style: none; padding: 0; margin: 0; display: grid; gap: 8px; }
ul.names li { display: flex; gap: 10px; align-items: center; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.ours td, tr.ours th { font-weight: 700; }
.good { color: var(--good); } .bad { color: var(--bad); }
.pictures { display: flex; flex-wrap: wrap; gap: 14px 28px; align-items: flex-start; margin: 10px 0; }
figure { margin: 0; max-width: 100%; }
figcaption { font-size: .92rem; }
svg.chart { max-width: 100%; height: auto; display: block; }
svg.strip, svg.mark-of-cluster { display: block; flex: none; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--soft); }
svg text.badge-number { fill: #101318; font-weight: 700; font-size: 12.5px; }
.bar { fill: var(--bar); } .bar.ours { fill: var(--ours); } .ground { fill: var(--rule); }
.whisker { stroke: var(--whisker); stroke-width: 1.4; }
.grid { stroke: var(--rule); stroke-width: 1; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.curve { fill: none; stroke-width: 2; }
.soft.dot { fill-opacity: .62; }
.badge { stroke: var(--card); stroke-width: 2; }
.k0 { --k: #5b8fd6; } .k1 { --k: #f0973b; } .k2 { --k: #e26a68; } .k3 { --k: #5fb8b0; } .k4 { --k: #6cb35e; }
.k5 { --k: #dfbd3c; } .k6 { --k: #b583c0; } .k7 { --k: #f49fb0; } .k8 { --k: #ad8368; } .k9 { --k: #9aa3ad; }
.dot, .badge { fill: var(--k); } .curve { stroke: var(--k); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; background: var(--k); margin-right: 6px; }
.two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 6px 34px; }
.two > div { min-width: 0; }
.example { border-top: 1px solid var(--rule); margin-top: 16px; padding-top: 6px; }
details { margin: 10px 0 0; } summary { cursor: pointer; color: var(--ours); }
dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 4px 18px; margin: 8px 0; }
dt { font-weight: 600; } dd { margin: 0; max-width: 75ch; }
ol { padding-left: 22px; margin: 4px 0; }
footer { color: var(--soft); font-size: .88rem; padding-bottom: 30px; }
@media (min-width: 900px) { #ranking th[scope=row], #besides th[scope=row] { white-space: nowrap; } }
@media (max-width: 700px) {
  main, header, footer { padding-left: 12px; padding-right: 12px; }
  section { padding: 16px 14px; } h1 { font-size: 1.4rem; }
  .two, .map { grid-template-columns: minmax(0, 1fr); }
  #ranking svg.strip { width: 110px; height: auto; } th[scope=row] { min-width: 96px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
}
@media print { section { break-inside: avoid; } }
"""

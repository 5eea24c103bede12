// The console: one page, four views, and the public HTTP API of the gateway it comes from.

import { keepToken, onTokenNeeded, request, tokenOwner } from "./api.js";
import { compareHash, compareView } from "./compare_view.js";
import { setText } from "./dom.js";
import { pause } from "./events.js";
import { everyoneView } from "./everyone_view.js";
import { bundleName, clock } from "./format.js";
import { Health } from "./health.js";
import { memberHash, memberView, newMember } from "./member_view.js";
import { pipelineView } from "./pipeline_view.js";
import { followTheme } from "./theme.js";

const STATUS_EVERY_MS = 2000;
/** Status is for operators: a member's own token stays one. */
const REFUSED_EVERY_MS = 60000;
/** A stream that is moved to another gateway is away for a moment. */
const AWAY_MS = 1500;
const SPEAK_AFTER_MS = 50;

const by = (id) => document.getElementById(id);
const health = new Health();
let view = new AbortController();
let lastMember = null;

function show() {
  const [name, given = ""] = location.hash.replace(/^#\/?/, "").split("/");
  const userId = safely(given);
  view.abort();
  view = new AbortController();
  const { signal } = view;
  const shared = {
    signal,
    health,
    go,
    announce,
    connection: (state, problem) => signal.aborted || showConnection(state, problem),
  };
  if (userId) lastMember = userId;
  const root = by("view");
  if (name === "member" && userId) memberView(root, { ...shared, userId });
  else if (name === "everyone") everyoneView(root, shared);
  else if (name === "compare" && (userId || !lastMember)) compareView(root, { ...shared, userId });
  else if (name === "compare") return location.replace(compareHash(lastMember));
  else if (name === "pipeline") pipelineView(root, shared);
  else return location.replace(firstMember());
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash.startsWith(`#/${name}`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${name === "member" ? `Member ${userId}` : name.charAt(0).toUpperCase() + name.slice(1)} · IntentRec`;
}

/** The member of before, or that of the token, or a new one. */
function firstMember() {
  const owner = tokenOwner();
  if (owner && !owner.isOperator) return memberHash(owner.userId);
  return lastMember ? memberHash(lastMember) : newMember();
}

function safely(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function go(hash) {
  if (location.hash === hash) show();
  else location.hash = hash;
}

/** Says a text to screen readers. */
function announce(text) {
  setText(by("spoken"), "");
  setTimeout(() => setText(by("spoken"), text), SPEAK_AFTER_MS);
}

const CONNECTIONS = { connecting: "Connecting", live: "Live", away: "Reconnecting" };
let liveMs = null;
let noticeTimer = null;

function showConnection(state, problem) {
  const pill = by("connection");
  pill.dataset.state = state;
  setText(pill, CONNECTIONS[state]);
  if (state === "live") liveMs = Date.now();
  const notice = by("notice");
  clearTimeout(noticeTimer);
  if (state !== "away") notice.hidden = true;
  else noticeTimer = setTimeout(() => (notice.hidden = false), problem || !liveMs ? 0 : AWAY_MS);
  const since = liveMs ? ` What you see is as of ${clock(liveMs)}.` : "";
  setText(notice, problem ? `${problem.message}. Trying again.` : `The gateway does not answer. Trying again.${since}`);
}

async function watchHealth() {
  for (;;) {
    if (!document.hidden) {
      try {
        health.take(await request("/v1/status"), Date.now());
        if (by("connection").dataset.state === "live") liveMs = Date.now();
        if (location.hash.startsWith("#/pipeline")) showConnection("live");
      } catch (error) {
        health.fail(error);
        if (location.hash.startsWith("#/pipeline") && !error.status) showConnection("away");
      }
      setText(by("bundle"), health.servingBundle() ? `bundle ${bundleName(health.servingBundle())}` : "");
    }
    await pause(health.problem?.status === 403 ? REFUSED_EVERY_MS : STATUS_EVERY_MS);
  }
}

onTokenNeeded(({ detail }) => {
  const dialog = by("token-dialog");
  setText(by("token-why"), detail.message);
  if (!dialog.open) dialog.showModal();
});
by("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(by("token").value);
  by("token-dialog").close();
  if (tokenOwner()?.isOperator) show();
  else go(firstMember());
});
addEventListener("hashchange", () => {
  show();
  by("view").querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || !by("search")) return;
  event.preventDefault();
  by("search").focus();
});
by("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the view
  by("view").focus();
});

followTheme(by("theme"));
show();
watchHealth();

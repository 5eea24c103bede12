// The session's plays as they come, each with what it changed.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { duration, intentName, moment, percent, plural } from "./format.js";

const MAX_SHOWN = 30;

/** The panel. `update(plays)` shows entries of MemberState, newest first. */
export function playsPanel() {
  const list = h("ol", { class: "plays", data: { testid: "plays" } });
  const empty = h("p", { class: "empty" }, "Plays appear here as they come.");
  return {
    element: h(
      "section",
      { class: "panel", "aria-labelledby": "plays-title" },
      h("h2", { id: "plays-title" }, "Plays"),
      empty,
      list,
    ),
    update(plays) {
      empty.hidden = plays.length > 0;
      reconcile(list, plays.slice(0, MAX_SHOWN), {
        key: (play) => play.eventId,
        create: () => {
          const parts = {
            session: h("p", { class: "session" }),
            title: h("strong"),
            when: h("span", { class: "quiet" }),
            changes: h("ul", { class: "changes" }),
          };
          return Object.assign(
            h("li", {}, parts.session, h("p", { class: "line" }, parts.title, parts.when), parts.changes),
            { parts },
          );
        },
        update: ({ parts }, play) => {
          parts.session.hidden = !play.opened;
          setText(parts.session, sessionText(play));
          setText(parts.title, play.item ? play.item.title : `Play ${play.eventId}`);
          setText(parts.when, whenText(play));
          reconcile(parts.changes, changeTexts(play), {
            key: ([name]) => name,
            create: () => h("li"),
            update: (line, [, text, tone]) => (setText(line, text), setAttribute(line, "class", tone)),
          });
        },
      });
    },
  };
}

function sessionText({ opened, closed }) {
  if (!opened) return "";
  if (!closed) return "New session";
  const count = closed.plays === undefined ? "" : `${plural(closed.plays, "play")} in `;
  return `New session. The one before: ${count}${duration(closed.seconds)}${closed.intent ? `, in the end ${intentName(closed.intent)}` : ""}`;
}

function whenText(play) {
  if (play.state === "sending") return "sending…";
  if (play.state === "waiting") return "not sent yet; trying again";
  if (play.state === "refused") return `refused: ${play.detail}`;
  if (play.state === "sent") return "sent; waiting for the answer";
  if (!play.isOwn) return moment(play.eventTime);
  return play.seenAfterS === undefined ? "answered" : `on screen after ${duration(play.seenAfterS)}`;
}

function changeTexts(play) {
  const texts = [];
  if (play.coalesced) texts.push(["coalesced", `answers ${plural(play.coalesced, "play")} together`]);
  if (play.shifted && play.primary) texts.push(["shifted", `intent moved to ${intentName(play.primary)}`]);
  for (const { head, label, from, to } of play.intentChanges ?? []) {
    const isRise = to > from;
    texts.push([
      `${head} ${label}`,
      `${intentName({ head, label })} ${isRise ? "▲" : "▼"} ${percent(from)} → ${percent(to)}`,
      isRise ? "rise" : "fall",
    ]);
  }
  const { entered = 0, climber, leader } = play.listChanges ?? {};
  if (leader) texts.push(["leader", `first is now ${leader.title ?? leader.item_id}`]);
  else if (climber)
    texts.push(["climber", `${climber.item.title ?? climber.item.item_id}: ${climber.from} → ${climber.to}`]);
  if (entered) texts.push(["entered", `${plural(entered, "new title")} in the list`]);
  if (play.foundAt) texts.push(["found", `was number ${play.foundAt} of the list before`]);
  return texts;
}

// This moment: open sessions, who comes and goes, and what has ended last.

import { COUNTED_LATE, clock, count, csv, download, el, figure, isBad, once, person, problem, span, svg, thousands, upTo, when, why } from "./text.js";
import { failure } from "./view.js";

/** Cards shown at first: three rows, or a screen of a phone. */
const CARDS = () => (innerWidth <= 720 ? 4 : innerWidth < 1100 ? 6 : 8);
const CARDS_MAX = 500;
/** Comings and goings that are kept. */
const MOVES_MAX = 6;
/** So long after its picture was made, what is open is of another time. */
export const OLD_MS = 20000;
const HOUR = 3600000, DAY = 24 * HOUR;
/** From this share of connections that ended badly on it is worth a look. */
const BAD_SHARE = 0.05;

/**
 * `state`: `body` of /api/sessions, `moves`, what `PAST` names, `limit`, `allCards`, and how the list of those that ended is `sorted`;
 * `more(change)` shows more, `sort(sorted)` in another order, and `all()` gives all that ended.
 */
export function show(state, q, { more, sort, all }) {
  const { body } = state;
  const live = body.live;
  const open = [...live.sessions].sort((a, b) => b.problems.length - a.problems.length || b.users - a.users || a.sessionId.localeCompare(b.sessionId));
  const parts = [trouble(body), old(live, body)];
  // The totals count all sessions, the list holds at most 500: those with problems, and those with the newest events.
  const people = live.sessions.length < live.totals.sessions ? live.totals.connections : live.sessions.reduce((sum, s) => sum + s.users, 0);
  if (q) {
    parts.push(el("header", { class: "title" }, el("h1", {}, `“${q}”`), el("p", { class: "lead" },
      `${count(live.totals.sessions, "open session", "open sessions")}, ${count(body.total, "ended one", "ended ones")} · `, el("a", { href: "#/", class: "link" }, "× show everything"))));
  } else {
    const { sessions, publishers, subscribers, recordings } = live.totals;
    const known = (n) => (live.madeAt ? n : null);
    parts.push(el("section", { class: "numbers", "aria-label": "At this moment" },
      number(known(sessions), "session open", "sessions open", spark(state.past, 0)), number(known(people), "person connected", "people connected", spark(state.past, 1)),
      number(known(publishers + subscribers), "stream sent or received", "streams sent and received", spark(state.past, 2)),
      number(known(recordings), "recording running", "recordings running", spark(state.past, 3)), lost(state.left)));
    parts.push(strip(state.moves, body.now));
  }
  if (open.length) {
    const most = state.allCards ? CARDS_MAX : CARDS();
    parts.push(el("h2", {}, "Open now", el("small", {}, live.troubled ? `${thousands(live.troubled)} of ${thousands(live.totals.sessions)} with problems` : "")),
      el("div", { class: "cards" }, open.slice(0, most).map((s) => card(s, live.at))));
    if (open.length > CARDS()) {
      parts.push(el("button", { class: "more", "data-key": "cards", "aria-expanded": String(state.allCards), onclick: () => more({ allCards: !state.allCards }) },
        state.allCards ? "Show fewer" : `Show ${open.length < live.totals.sessions ? "the first" : "all"} ${thousands(open.length)}`));
    }
    if (state.allCards && open.length < live.totals.sessions) parts.push(el("p", { class: "quiet" }, `Another ${thousands(live.totals.sessions - open.length)} are open, without problems, and longer without news. The search finds each of them.`));
  }
  if (body.ended.length) {
    parts.push(el("h2", {}, "Ended", el("small", {}, `${body.ended.length < body.total ? `the ${order(state.sorted) ? "first" : "last"} ${thousands(body.ended.length)} of ` : ""}${body.total >= 10000 ? "more than 10\u2009000" : thousands(body.total)}`), files(all)), ended(body.ended, body.now, state.sorted, sort));
    if (body.partial) parts.push(el("p", { class: "quiet" }, "There may be more: many people are called like that, and not all were looked through. A longer word finds fewer."));
    if (body.total > body.ended.length && state.limit < 1000) parts.push(el("button", { class: "more", "data-key": "more", onclick: () => more({ limit: Math.min(1000, state.limit * 3) }) }, "Show more"));
  }
  if (!open.length && !body.ended.length) parts.push(nothing(body, q));
  return parts.filter(Boolean);
}

/** One figure; null: it is not known yet. */
const number = (n, one, many, below) => el("div", { class: "number" }, el("b", {}, n === null ? "–" : thousands(n)), el("span", {}, n === 1 ? one : many), below);

/** The last day as a line, and faintly the same hours of the day before; nothing where nothing was counted. */
function spark(past, place) {
  if (!past?.parts.length) return null;
  const values = new Map(past.parts.map((part) => [part.keys[0], part.values[place] || 0]));
  const points = [];
  for (let at = past.parts[0].keys[0]; at < past.to - COUNTED_LATE; at += past.step) points.push([at, values.get(at) || 0]);
  const most = Math.max(...points.map(([, value]) => value), 1);
  const line = (from) => points.filter(([at]) => at >= from && at < from + DAY).map(([at, value]) => `${(((at - from) / DAY) * 100).toFixed(1)} ${(23 - (value / most) * 22).toFixed(1)}`).join("L");
  const [before, last] = [line(past.to - 2 * DAY), line(past.to - DAY)];
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": `at most ${thousands(most)} in the last two days` },
    before ? svg("path", { class: "before", d: `M${before}` }) : null, last ? svg("path", { class: "last", d: `M${last}` }) : null);
}

/** Which share of those who left in the last hour did not mean to. */
function lost(left) {
  if (!left?.documents) return null;
  const all = left.parts.reduce((sum, part) => sum + part.values[0], 0);
  const bad = left.parts.filter((part) => isBad(part.keys[0])).reduce((sum, part) => sum + part.values[0], 0);
  return el("div", { class: `number${bad / all > BAD_SHARE ? " warn" : ""}` }, el("b", {}, `${figure((100 * bad) / all)}\u00a0%`), el("span", {}, "lost, of all who left in the last hour"));
}

function strip(moves, now) {
  if (!moves.length) return null;
  return el("ul", { class: "moves", "aria-label": "Coming and going" }, moves.map((move) => el("li", { class: move.hasJoined ? "came" : "went", "data-key": move.key },
    el("b", {}, person(move.who)), move.hasJoined ? " joined " : " left ", el("a", { href: `#/s/${encodeURIComponent(move.uniqueSessionId)}` }, move.sessionId), el("small", {}, ` ${when(move.at, now)}`))));
}

/** Adds what a message told, the newest first. */
export function moved(moves, change) {
  const told = change.people.map((one) => ({ ...one, at: change.at, key: `${one.who} ${one.uniqueSessionId} ${one.hasJoined} ${change.at}` }));
  return [...told.reverse(), ...moves].slice(0, MOVES_MAX);
}

/** The open sessions after a message. */
export function applied(live, change) {
  const sessions = new Map((live?.sessions || []).map((session) => [session.uniqueSessionId, session]));
  for (const id of change.gone) sessions.delete(id);
  for (const session of change.changed) sessions.set(session.uniqueSessionId, session);
  return { at: change.at, madeAt: change.madeAt, totals: change.totals, troubled: change.troubled, sessions: [...sessions.values()] };
}

/** What is asked for of the past, besides what has ended: the last two days, and the last hour. */
export const PAST = { past: ["concurrency", 2 * DAY], left: ["reasons-of-leaving", HOUR] };

/** One clear line: what is wrong, since when, what still works, what to do. The technical reason is one click away. */
export function trouble(body) {
  const told = [...(body.troubles || []), body.error].filter(Boolean).map(once);
  if (!told.length) return null;
  const [first] = told;
  const since = body.troubledSince ? ` since ${when(body.troubledSince, body.now)}` : "";
  const isAway = first.startsWith("the sink is away");
  const isPaused = first.startsWith("the sink refuses");
  const line = isAway ? `The store has not answered${since}. Events are still taken and wait in the journal; nothing is lost. Check that it runs; callscope goes on by itself.`
    : isPaused ? `The store has refused documents${since}. Events are still taken and wait in the journal; nothing is lost. Cure what the reason says; callscope goes on by itself.`
    : `${first[0].toUpperCase()}${first.slice(1)}.`;
  const reasons = isAway || isPaused ? told : told.slice(1);
  return el("div", { class: body.troubles?.length ? "notice bad" : "notice", role: "alert" }, el("p", {}, line),
    reasons.length ? el("details", { "data-key": "reason" }, el("summary", {}, "Reason"), reasons.map((text) => el("p", {}, text))) : null);
}

/** Events wait for a store that does not take what they make: what is open is then that of the last ones that were read. Or they come late. */
function old(live, body) {
  if (!live.madeAt) return el("p", { class: "notice plain" }, "What is open is not known yet.");
  if (body.now - live.madeAt < OLD_MS) return upTo(live.at, body.now);
  return el("p", { class: "notice plain" }, `What is open is as of ${when(live.madeAt, body.now, clock)}. Events that came since wait.`);
}

function card(s, at) {
  const isBad = s.problems.length > 0;
  const facts = [count(s.users, "person", "people"), count(s.publishers, "stream", "streams"), s.createdAt ? span((Math.max(at, s.lastEventAt) - s.createdAt) / 1000) : ""].filter(Boolean).join(" · ");
  return el("a", { class: isBad ? "card bad" : "card", href: `#/s/${encodeURIComponent(s.uniqueSessionId)}` },
    el("span", { class: "head" }, el("b", { title: s.sessionId }, s.sessionId.trim() || "(no name)"), s.recordings ? el("span", { class: "rec", title: "being recorded" }, "● rec") : null),
    el("span", { class: "facts" }, facts),
    s.goneSince ? el("span", { class: "wrong" }, `not shown by OpenVidu since ${when(s.goneSince, Math.max(at, s.goneSince))}`) : null,
    isBad ? el("span", { class: "wrong" }, `⚠ ${s.problems.map(problem).join(", ")}`) : null,
    el("span", { class: "dots", "aria-hidden": "true" }, Array.from({ length: Math.min(s.users, 20) }, () => el("i"))));
}

function health(s) {
  if (s.problems && s.problems.length) return el("span", { class: "state bad" }, s.problems.map(problem).join(", "));
  if (s.closedBy === "silence") return el("span", { class: "state warn", title: s.goneSince ? `OpenVidu has not shown it since ${when(s.goneSince)}` : null }, s.goneSince ? "end missed" : "end unknown");
  if (s.health === "healthy") return el("span", { class: "state good" }, "healthy");
  return el("span", { class: "state", title: "no telemetry came with its events" }, "unknown");
}

/** Columns of the list of ended sessions: each with the field that it is sorted by, and whether what is least is looked for first. Who has no
 * problems comes last either way. */
const COLUMNS = [
  ["Session", "name", "sessionId", true], ["Health", "health", "problems", true], ["Ended", "at", "destroyedAt", false], ["Length", "n", "duration", false],
  ["People", "n", "users.numberOfElements", false], ["Rec.", "n", "recordings.numberOfElements", false], ["Why it ended", "why", "reason", true],
];

/** How the API is asked for a list that is `sorted`; empty: as it is by itself, the last one first. */
export const order = (sorted) => (COLUMNS[sorted?.i] ? `${COLUMNS[sorted.i][2]}:${sorted.isRising ? "up" : "down"}` : "");

function ended(sessions, at, sorted, sort) {
  const head = ([text, kind, , isRising], i) => el("th", { scope: "col", class: kind, "aria-sort": sorted?.i === i ? (sorted.isRising ? "ascending" : "descending") : "none" },
    el("button", { type: "button", "data-key": `by-${i}`, onclick: () => sort({ i, isRising: sorted?.i === i ? !sorted.isRising : isRising }) }, text));
  const row = (s) => {
    const people = s.users.numberOfElements;
    const recordings = s.recordings.numberOfElements;
    return el("tr", {},
      el("td", { class: "name" }, el("a", { href: `#/s/${encodeURIComponent(s.uniqueSessionId)}`, title: s.sessionId }, s.sessionId.trim() || "(no name)")),
      el("td", { class: "health" }, health(s)),
      el("td", { class: "at" }, when(s.destroyedAt, at)),
      el("td", { class: "n" }, span(s.duration)),
      el("td", { class: "n", "data-unit": people === 1 ? "person" : "people" }, thousands(people)),
      el("td", { class: "n", "data-unit": recordings === 1 ? "recording" : "recordings" }, recordings ? thousands(recordings) : ""),
      el("td", { class: "why", title: why(s.reason) }, s.reason ? el("a", { href: `#/?q=${encodeURIComponent(s.reason)}` }, why(s.reason)) : ""));
  };
  return el("table", { class: "list" }, el("thead", {}, el("tr", {}, COLUMNS.map(head))), el("tbody", {}, sessions.map(row)));
}

/** The whole list as files. */
function files(all) {
  const rows = (sessions) => [["session", "uniqueSessionId", "problems", "ended", "seconds", "people", "recordings", "reason"], ...sessions.map((s) => [s.sessionId, s.uniqueSessionId, (s.problems || []).join(" "), new Date(s.destroyedAt).toISOString(), s.duration, s.users.numberOfElements, s.recordings.numberOfElements, s.reason])];
  const link = (label, save) => {
    const start = async (event) => {
      event.preventDefault();
      try {
        const { sessions, isCut } = await all();
        save(sessions);
        if (isCut) node.textContent = `${label}: the first ${thousands(sessions.length)}`;
      } catch (error) { node.textContent = `${label} failed`; node.title = failure(error); }
    };
    const node = el("a", { href: "#", "data-key": `save-${label}`, onclick: start }, label);
    return node;
  };
  return el("span", { class: "exports" }, link("JSON", (sessions) => download("sessions.json", "application/json", JSON.stringify(sessions, null, 2))), link("CSV", (sessions) => download("sessions.csv", "text/csv", csv(rows(sessions)))));
}

/** Why there is nothing, and what would change that. */
function nothing(body, q) {
  if (q && body.error) return el("p", { class: "empty" }, "What has ended cannot be looked through until the store answers; no open session is called like that.");
  if (q) return el("p", { class: "empty" }, "Nobody and nothing is called like that. Words and their beginnings are looked for: names of sessions, users, connections, places and reasons.");
  if (body.events || body.troubles.length || body.error) {
    return el("p", { class: "empty" }, !body.events ? (body.error ? "Nothing can be shown until the store answers." : "No event has been taken yet.")
      : body.troubles.length ? `${count(body.events, "event has", "events have")} come. What they tell is shown as soon as the store takes it.`
      : `${count(body.events, "event has", "events have")} come, but no session is open and none that ended can be shown.`);
  }
  return el("div", { class: "empty" },
    el("p", {}, "No events yet. Point your OpenVidu server here, in its .env file, and restart it:"),
    el("pre", {}, `OPENVIDU_WEBHOOK=true\nOPENVIDU_WEBHOOK_ENDPOINT=${location.origin}/webhook\nOPENVIDU_WEBHOOK_HEADERS=["Authorization: Bearer YOUR-SECRET"]`),
    el("p", {}, "The secret is one of sources.default.secrets. Old CDR files come in with callscope import; callscope demo shows what it looks like."));
}


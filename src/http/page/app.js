// The page: the list of sessions, and the wiring of both views. No framework, no other host.

import { clock, count, el, once, problem, span, thousands, when, why } from "./text.js";
import { show as session } from "./session.js";

const view = document.getElementById("view");
const age = document.getElementById("age");
/** How often open sessions are asked for, and one open session; a failed request is tried again after as long. */
const EVERY = { now: 3000, session: 5000, failed: 5000 };
/** Cards shown at first: three rows, or a screen of a phone. */
const CARDS = () => (innerWidth <= 720 ? 4 : innerWidth < 1100 ? 6 : 8);

async function ask(path) {
  const response = await fetch(path);
  const text = await response.text();
  let body;
  try { body = JSON.parse(text); } catch { body = { error: `status ${response.status}` }; }
  if (!response.ok) throw Object.assign(new Error(body.error || `status ${response.status}`), { hint: body.hint });
  return { body, text };
}

// Now ------------------------------------------------------------------------------------------------------------------

let limit = 30;
let allCards = false;

function now(body, query) {
  const q = query.get("q") || "";
  const live = body.live;
  const open = [...live.sessions].sort((a, b) => b.problems.length - a.problems.length || b.users - a.users || a.sessionId.localeCompare(b.sessionId));
  const parts = [trouble(body)];
  // The totals count all sessions, the list holds at most 500.
  const people = live.sessions.length < live.totals.sessions ? live.totals.connections : live.sessions.reduce((sum, s) => sum + s.users, 0);
  if (q) {
    parts.push(el("header", { class: "title" }, el("h1", {}, `“${q}”`), el("p", { class: "lead" },
      `${count(open.length, "open session", "open sessions")}, ${count(body.total, "ended one", "ended ones")} · `, el("a", { href: "#/", class: "chip" }, "× show everything"))));
  } else {
    parts.push(el("section", { class: "numbers", "aria-label": "At this moment" },
      number(live.totals.sessions, "sessions open"), number(people, "people connected"),
      number(live.totals.publishers, "streams sent"), number(live.totals.recordings, "recordings running")));
  }
  if (open.length) {
    const most = allCards ? 200 : CARDS();
    const bad = open.filter((s) => s.problems.length).length;
    parts.push(el("h2", {}, "Open now", el("small", {}, bad ? `${thousands(bad)} of ${thousands(open.length)} with problems` : "")),
      el("div", { class: "cards" }, open.slice(0, most).map((s) => card(s, live.at))));
    if (open.length > CARDS()) {
      parts.push(el("button", { class: "more", "data-key": "cards", "aria-expanded": String(allCards), onclick: () => { allCards = !allCards; route(true); } },
        allCards ? "Show fewer" : `Show all ${thousands(Math.min(200, open.length))}`));
    }
  }
  if (body.ended.length) {
    parts.push(el("h2", {}, "Ended", el("small", {}, body.total >= 10000 ? "more than 10\u2009000" : thousands(body.total))), ended(body.ended, body.now));
    if (body.total > body.ended.length && limit < 1000) parts.push(el("button", { class: "more", "data-key": "more", onclick: () => { limit = Math.min(1000, limit * 3); route(true); } }, "Show more"));
  }
  if (!open.length && !body.ended.length) parts.push(nothing(body, q));
  return parts.filter(Boolean);
}

const number = (n, label) => el("div", { class: "number" }, el("b", {}, thousands(n)), el("span", {}, label));

/** One clear line: what is wrong, since when, what still works, what to do. The technical reason is one click away. */
function trouble(body) {
  const told = [...body.troubles, body.error].filter(Boolean).map(once);
  if (!told.length) return null;
  const [first] = told;
  const since = body.troubledSince ? ` since ${when(body.troubledSince, body.now)}` : "";
  const isAway = first.startsWith("the sink is away");
  const isPaused = first.startsWith("the sink refuses");
  const line = isAway ? `The store has not answered${since}. Events are still taken and wait in the journal; nothing is lost. Check that it runs; callscope goes on by itself.`
    : isPaused ? `The store has refused documents${since}. Events are still taken and wait in the journal; nothing is lost. Cure what the reason says; callscope goes on by itself.`
    : `${first[0].toUpperCase()}${first.slice(1)}.`;
  const reasons = isAway || isPaused ? told : told.slice(1);
  return el("div", { class: body.troubles.length ? "notice bad" : "notice", role: "alert" }, el("p", {}, line),
    reasons.length ? el("details", { "data-key": "reason" }, el("summary", {}, "Reason"), reasons.map((text) => el("p", {}, text))) : null);
}

function card(s, at) {
  const isBad = s.problems.length > 0;
  const facts = [count(s.users, "person", "people"), count(s.publishers, "stream", "streams"), s.createdAt ? span((Math.max(at, s.lastEventAt) - s.createdAt) / 1000) : ""].filter(Boolean).join(" · ");
  return el("a", { class: isBad ? "card bad" : "card", href: `#/s/${encodeURIComponent(s.uniqueSessionId)}` },
    el("span", { class: "head" }, el("b", { title: s.sessionId }, s.sessionId), s.recordings ? el("span", { class: "rec", title: "being recorded" }, "● rec") : null),
    el("span", { class: "facts" }, facts),
    isBad ? el("span", { class: "wrong" }, `⚠ ${s.problems.map(problem).join(", ")}`) : null,
    el("span", { class: "dots", "aria-hidden": "true" }, Array.from({ length: Math.min(s.users, 20) }, () => el("i"))));
}

function health(s) {
  if (s.problems && s.problems.length) return el("span", { class: "state bad" }, s.problems.map(problem).join(", "));
  if (s.closedBy === "silence") return el("span", { class: "state warn" }, "end unknown");
  if (s.health === "healthy") return el("span", { class: "state good" }, "healthy");
  return el("span", { class: "state", title: "no telemetry came with its events" }, "unknown");
}

function ended(sessions, at) {
  const head = (text, kind) => el("th", { scope: "col", class: kind }, text);
  const row = (s) => {
    const people = s.users.numberOfElements;
    const recordings = s.recordings.numberOfElements;
    return el("tr", {},
      el("td", { class: "name" }, el("a", { href: `#/s/${encodeURIComponent(s.uniqueSessionId)}`, title: s.sessionId }, s.sessionId)),
      el("td", { class: "health" }, health(s)),
      el("td", { class: "at" }, when(s.destroyedAt, at)),
      el("td", { class: "n" }, span(s.duration)),
      el("td", { class: "n", "data-unit": people === 1 ? "person" : "people" }, thousands(people)),
      el("td", { class: "n", "data-unit": recordings === 1 ? "recording" : "recordings" }, recordings ? thousands(recordings) : ""),
      el("td", { class: "why", title: why(s.reason) }, why(s.reason)));
  };
  return el("table", { class: "list" },
    el("thead", {}, el("tr", {}, head("Session", "name"), head("Health", "health"), head("Ended", "at"), head("Length", "n"), head("People", "n"), head("Rec.", "n"), head("Why it ended", "why"))),
    el("tbody", {}, sessions.map(row)));
}

/** Why there is nothing, and what would change that. */
function nothing(body, q) {
  if (q) return el("p", { class: "empty" }, "Nobody and nothing is called like that. Words and their beginnings are looked for: names of sessions, users, connections, places and reasons.");
  if (body.events || body.troubles.length || body.error) {
    return el("p", { class: "empty" }, !body.events ? "Nothing can be shown until the store answers."
      : body.troubles.length ? `${count(body.events, "event has", "events have")} come. What they tell is shown as soon as the store takes it.`
      : `${count(body.events, "event has", "events have")} come, but no session is open and none that ended can be shown.`);
  }
  return el("div", { class: "empty" },
    el("p", {}, "No events yet. Point your OpenVidu server here, in its .env file, and restart it:"),
    el("pre", {}, `OPENVIDU_WEBHOOK=true\nOPENVIDU_WEBHOOK_ENDPOINT=${location.origin}/webhook\nOPENVIDU_WEBHOOK_HEADERS=["Authorization: Bearer YOUR-SECRET"]`),
    el("p", {}, "The secret is one of sources.default.secrets. Old CDR files come in with callscope import; callscope demo shows what it looks like."));
}

// Wiring ---------------------------------------------------------------------------------------------------------------

let timer = 0;
let shown = "";
let shownText = "";
let failedSince = 0;
let asked = 0;

/** Puts `parts` in place of what is shown, and keeps focus and opened details where they were. */
function replace(parts) {
  const key = (node) => node?.getAttribute?.("href") || node?.dataset?.key;
  const focused = view.contains(document.activeElement) ? key(document.activeElement) : "";
  const opened = new Set([...view.querySelectorAll("details[open]")].map(key));
  view.replaceChildren(...parts);
  for (const details of view.querySelectorAll("details")) details.open = opened.has(key(details));
  if (focused) [...view.querySelectorAll("a, button, summary")].find((node) => key(node) === focused)?.focus({ preventScroll: true });
}

async function route(isForced) {
  clearTimeout(timer);
  const mine = ++asked;
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const key = path + (query || "");
  let again = EVERY.now;
  try {
    const id = path.startsWith("/s/") ? decodeURIComponent(path.slice(3)) : "";
    const parameters = new URLSearchParams(query || "");
    const { body, text } = await ask(id ? `/api/sessions/${encodeURIComponent(id)}` : `/api/sessions?limit=${limit}&q=${encodeURIComponent(parameters.get("q") || "")}`);
    if (mine !== asked) return;
    // Nothing moves unless something has changed.
    const news = text.replace(/"now":\d+,/, "");
    const isNew = shown !== key;
    if (isForced === true || isNew || failedSince || (news !== shownText && !String(getSelection()))) {
      replace(id ? session(body, id) : now(body, parameters));
      shownText = news;
    }
    document.title = id ? `${view.querySelector("h1").firstChild.textContent} – callscope` : "callscope";
    if (isNew) { scrollTo(0, 0); document.querySelector("#search input").value = parameters.get("q") || ""; }
    shown = key;
    failedSince = 0;
    age.textContent = clock(Date.now());
    age.title = "when this was asked for";
    if (id) again = document.getElementById("open") ? EVERY.session : 0;
  } catch (error) {
    if (mine !== asked) return;
    failedSince = failedSince || Date.now();
    const isLost = error instanceof TypeError;
    const box = el("div", { class: "notice bad failed", role: "alert" }, el("p", {}, isLost
      ? `callscope has not answered since ${clock(failedSince)}. What is shown is from before. Trying again.`
      : `${error.message[0].toUpperCase()}${error.message.slice(1)}. ${error.hint ? `${error.hint[0].toUpperCase()}${error.hint.slice(1)}.` : ""}`),
    el("a", { href: "#/" }, "All sessions"));
    const old = view.querySelector(".notice.failed");
    if (old) old.replaceWith(box);
    else if (shown === key) view.prepend(box);
    else { view.replaceChildren(box); shown = key; }
    again = EVERY.failed;
  }
  if (again) timer = setTimeout(() => { if (!document.hidden) route(); }, again);
}

/** Moves the focus through the sessions of the list. */
function step(by) {
  const links = [...view.querySelectorAll(".card, td.name a")];
  if (links.length) links[Math.max(0, Math.min(links.length - 1, links.indexOf(document.activeElement) + by))].focus();
}

addEventListener("hashchange", () => route());
document.addEventListener("visibilitychange", () => { if (!document.hidden) route(); });
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = new FormData(event.target).get("q").trim();
  location.hash = q ? `#/?q=${encodeURIComponent(q)}` : "#/";
});
const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const isTyping = event.target.matches("input");
  if (event.key === "Escape") {
    if (isTyping) event.target.blur();
    else if (location.hash.length > 2) location.hash = "#/";
  } else if (isTyping) return;
  else if (event.key === "/") { event.preventDefault(); document.querySelector("#search input").focus(); }
  else if (event.key === "?") help.showModal();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});
route();

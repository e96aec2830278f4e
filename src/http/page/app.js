// The page: which view is shown, and what keeps it fresh. No framework, no other host.

import { clock, el } from "./text.js";
import { address, ask, failure, look, read, store } from "./view.js";
import { OLD_MS, PAST, applied, moved, order, show as now } from "./now.js";
import { show as session } from "./session.js";
import { show as explore } from "./explore.js";

const view = document.getElementById("view");
const age = document.getElementById("age");
const tabs = document.getElementById("tabs");
/** How often this moment and one open session are asked for, milliseconds; a failed request is tried again after as long. */
const EVERY = { now: 5000, past: 60000, session: 5000, failed: 5000 };
/** From so many milliseconds on somebody who waits is told why. */
const WAIT = 1500;

let catalog = null;
let timer = 0;
let shown = "";
let shownText = "";
let failedSince = 0;
let waitedSince = 0;
let asked = 0;
let board = null;

const go = (next) => { location.hash = address(next); };

/** What an address shows: which part of a session is looked at changes nothing else. */
const keyOf = (next) => address(next.path[0] === "s" ? { ...next, path: next.path.slice(0, 2), looks: {} } : next);

/** Writes into the address how something is looked at, without a step that would be gone back. */
function note(next) {
  history.replaceState(null, "", address(next));
  shown = keyOf(next);
  if (board) board.key = shown;
}

/** Puts `parts` in place of what is shown, and keeps focus and opened details where they were. */
function replace(parts) {
  const key = (node) => node?.getAttribute?.("href") || node?.dataset?.key;
  const focused = view.contains(document.activeElement) ? key(document.activeElement) : "";
  const opened = new Set([...view.querySelectorAll("details[open]")].map(key));
  view.replaceChildren(...parts);
  for (const details of view.querySelectorAll("details")) details.open = opened.has(key(details));
  if (focused) [...view.querySelectorAll("a, button, summary")].find((node) => key(node) === focused)?.focus({ preventScroll: true });
}

// This moment ----------------------------------------------------------------------------------------------------------

const state = { body: null, moves: [], limit: 30, allCards: false, askedPast: 0 };
let source = null;

/** Is told as things happen, as long as this moment is looked at. */
function listen(isWanted) {
  if (!isWanted) { source?.close(); source = null; return; }
  if (source) return;
  source = new EventSource("/api/live");
  const take = (event) => {
    const change = JSON.parse(event.data);
    state.live = applied(event.type === "all" ? null : state.live, change);
    state.moves = moved(state.moves, change);
    if (!String(getSelection())) draw();
    if (change.gone?.length) route();
  };
  source.addEventListener("alive", (event) => {
    if (!state.live) return;
    Object.assign(state.live, JSON.parse(event.data));
    if (state.live.now - state.live.madeAt >= OLD_MS && !String(getSelection())) draw();
  });
  source.addEventListener("all", take);
  source.addEventListener("change", take);
  source.addEventListener("error", () => { if (source?.readyState === EventSource.CLOSED) { source = null; } });
}

function draw() {
  const current = read(location.hash);
  if (current.path[0] !== "") return;
  // What is said of the index or of callscope is true for as long as it is.
  const said = view.querySelector(".notice.waiting, .notice.failed");
  if (!state.body) {
    if (said) replace([said, ...known(current), view.querySelector(".skeleton")].filter(Boolean));
    return;
  }
  const body = state.live && !current.q ? { ...state.body, now: Math.max(state.body.now, state.live.now || 0), live: { ...state.live, madeAt: Math.max(state.live.madeAt, state.body.live.madeAt) } } : state.body;
  const more = (change) => { Object.assign(state, change); if (change.limit) route(true); else draw(); };
  const sort = (sorted) => { look(current.looks, "ended").sorted = sorted; note(current); route(true); };
  replace([said, ...now({ ...state, body, sorted: current.looks.ended?.sorted }, current.q, { more, sort, all: () => everything(current) })].filter(Boolean));
}

/** What the list of ended sessions asks for. */
const listed = (current) => `/api/sessions?q=${encodeURIComponent(current.q)}&sort=${order(current.looks.ended?.sorted)}`;

/** All ended sessions of the list, as far as the API reaches. What ends meanwhile moves the others on: none comes twice. */
async function everything(current) {
  const found = new Map();
  let total = 0;
  for (let offset = 0; offset !== undefined;) {
    const { body } = await ask(`${listed(current)}&from=0&limit=1000&offset=${offset}`);
    if (body.error) throw new Error(body.error);
    for (const session of body.ended) found.set(session.uniqueSessionId, session);
    ({ total } = body);
    offset = body.nextOffset;
  }
  return { sessions: [...found.values()], isCut: total > found.size };
}

async function showNow(current, isForced, isNew) {
  const { body, text } = await ask(`${listed(current)}&limit=${state.limit}`);
  if (!current.q && Date.now() - state.askedPast > EVERY.past) {
    state.askedPast = Date.now();
    for (const [name, [panel, span]] of Object.entries(PAST)) {
      ask(`/api/panels/${panel}?from=${body.now - span}&to=${body.now}`).then((answer) => { state[name] = answer.body; draw(); }, () => { state[name] = null; });
    }
  }
  return () => {
    state.body = body;
    // Nothing moves unless something has changed.
    const news = text.replace(/"now":\d+,/, "");
    if (isForced || isNew || failedSince || (news !== shownText && !String(getSelection()))) draw();
    shownText = news;
    return EVERY.now;
  };
}

async function showSession(current, isForced, isNew) {
  const { body, text } = await ask(`/api/sessions/${encodeURIComponent(current.path[1])}`);
  return () => {
    const news = text.replace(/"now":\d+,/, "");
    if (isForced || isNew || failedSince || (news !== shownText && !String(getSelection()))) replace(session(body, { view: current, catalog, note }));
    shownText = news;
    return document.getElementById("open") ? EVERY.session : 0;
  };
}

async function showBoard(current, isNew) {
  const dashboard = catalog.find((one) => one.id === current.path[1]);
  if (!dashboard) throw new Error("there is no such dashboard");
  if (dashboard.ofOne) throw new Error("choose a session: its charts stand beside its people and streams");
  if (isNew) {
    board = { key: keyOf(current), ...explore(dashboard, current, { go, note }) };
    view.replaceChildren(...board.nodes);
  }
  await board.load();
  return () => current.every * 1000;
}

/** Whether an address is one of this page. */
const isKnown = ({ path: [kind, id] }) => kind === "" || ((kind === "s" || kind === "d") && Boolean(id));

/** Says that an address leads nowhere, and what does lead somewhere. */
function showNothing() {
  const link = (path, label) => el("a", { class: "link", href: address({ path, filters: [], last: "24h" }) }, label);
  const links = [link([""], "Now"), ...catalog.filter((one) => !one.ofOne).map((one) => link(["d", one.id], one.title))];
  view.replaceChildren(el("div", { class: "empty" }, el("h1", {}, "There is no such page"), el("p", {}, "What there is: ", links.flatMap((one, i) => (i ? [" · ", one] : [one])), ". A session is found by its name, or by who was there.")));
  return 0;
}

// Wiring ---------------------------------------------------------------------------------------------------------------

/** Shows what the address says. */
async function route(isForced) {
  clearTimeout(timer);
  const mine = ++asked;
  const current = read(location.hash);
  const key = keyOf(current);
  const kind = current.path[0];
  // One that was left before it was answered was never noted as shown.
  const isLeft = board !== null && board.key !== key;
  if (isLeft) { board.end(); board = null; }
  const isNew = isLeft || shown !== key;
  let again = EVERY.now;
  // A connection that is kept open is one of few that a browser has for all its tabs.
  listen(kind === "" && !document.hidden);
  const waiting = setTimeout(() => wait(mine, current, isNew), WAIT);
  try {
    catalog ||= (await ask("/api/dashboards")).body.dashboards;
    name(current);
    const settle = !isKnown(current) ? showNothing : kind === "s" ? await showSession(current, isForced, isNew) : kind === "d" ? await showBoard(current, isNew || !board) : await showNow(current, isForced, isNew);
    if (mine !== asked) return;
    clearTimeout(waiting);
    again = settle();
    const title = view.querySelector("h1")?.firstChild.textContent;
    document.title = title && kind ? `${title} – callscope` : "callscope";
    if (isNew) {
      if (shown.split("?")[0] !== key.split("?")[0]) scrollTo(0, 0);
      document.querySelector("#search input").value = current.q;
    }
    shown = key;
    failedSince = 0;
    waitedSince = 0;
    view.querySelectorAll(".notice.waiting, .notice.failed").forEach((old) => old.remove());
    age.textContent = clock(Date.now());
    age.title = "when this was asked for";
  } catch (error) {
    clearTimeout(waiting);
    if (mine !== asked || error.name === "AbortError") return;
    failedSince = failedSince || Date.now();
    waitedSince = 0;
    const isWrong = error.status === 400 && kind === "d";
    // What one can do about it comes first, what a client of the store says is one click away.
    const [isAway, isDenied] = ["away", "refuses"].map((way) => store(error) === way);
    const box = el("div", { class: "notice bad failed", role: "alert" },
      el("p", {}, error instanceof TypeError ? `callscope has not answered since ${clock(failedSince)}. What is shown is from before. Trying again.`
        : isAway ? `The store has not answered since ${clock(failedSince)}. Events are still taken; nothing is lost. Check that it runs; this page tries again by itself.`
        : isDenied ? "The store does not let callscope read. Events are still taken; nothing is lost. See that the account of the section elasticsearch may read the index; this page tries again by itself." : failure(error)),
      isAway || isDenied ? el("details", { "data-key": "reason" }, el("summary", {}, "Reason"), el("p", {}, failure(error))) : null,
      isWrong ? el("a", { href: address({ path: current.path, filters: [], last: "24h" }) }, "The last 24 hours of everything") : el("a", { href: "#/" }, "All sessions"));
    const old = view.querySelector(".notice.failed");
    if (old) old.replaceWith(box);
    else if (shown === key || (kind === "d" && board && !isWrong)) { view.prepend(box); shown = key; }
    else { view.replaceChildren(box, ...known(current)); shown = key; }
    // What is wrong in an address does not pass by itself.
    again = isWrong ? 0 : EVERY.failed;
  }
  if (again) timer = setTimeout(() => { if (!document.hidden) route(); }, again);
}

/** Says that an answer takes its time, and shows what is known without it. */
function wait(mine, current, isNew) {
  if (mine !== asked) return;
  waitedSince ||= Date.now() - WAIT;
  const told = el("p", { class: "notice plain waiting", role: "status" }, `Asked at ${clock(waitedSince)}, the index has not answered yet. What it knows is shown as soon as it does.`);
  // A dashboard stands already, with room for what its panels will show.
  if (!isNew || (current.path[0] === "d" && board)) { if (!view.querySelector(".notice")) view.prepend(told); return; }
  view.replaceChildren(told, ...known(current), el("div", { class: "skeleton tall", "aria-busy": "true" }));
  // What is open is known without the index.
  if (current.path[0] === "s") ask(`/api/sessions/${encodeURIComponent(current.path[1])}?index=false`).then(({ body }) => {
    if (mine === asked && told.isConnected) view.replaceChildren(told, ...session({ ...body, error: "it has not answered yet" }, { view: current, catalog, note }));
  }, () => {});
}

/** What is known without the index: the open sessions. */
function known(current) {
  if (current.path[0] !== "" || !state.live) return [];
  return now({ ...state, body: { now: state.live.now || Date.now(), live: state.live, ended: [], total: 0, troubles: [], events: 1 } }, "", {}).filter((node) => !node.classList.contains("empty"));
}

/** The names of all views; time and filters go along from one dashboard to the next. */
function name(current) {
  const isBoard = current.path[0] === "d";
  const kept = isBoard ? { last: current.last, from: current.from, to: current.to, every: current.every, filters: current.filters } : { last: "24h", filters: [], every: 0 };
  const link = (path, label) => el("a", { href: address({ ...kept, path }), "aria-current": current.path.join("/") === path.join("/") ? "page" : null }, label);
  tabs.replaceChildren(el("a", { href: "#/", "aria-current": current.path[0] === "" ? "page" : null }, "Now"), ...catalog.filter((one) => !one.ofOne).map((one) => link(["d", one.id], one.title)));
}

/** Moves the focus through the sessions of the list, or the panels of a dashboard. */
function step(by) {
  const stops = [...view.querySelectorAll(".card, td.name a, .panel .tools button:first-child")];
  if (stops.length) stops[Math.max(0, Math.min(stops.length - 1, stops.indexOf(document.activeElement) + by))].focus();
}

addEventListener("hashchange", () => route());
document.addEventListener("visibilitychange", () => { if (document.hidden) listen(false); else route(); });
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = new FormData(event.target).get("q").trim();
  location.hash = q ? `#/?q=${encodeURIComponent(q)}` : "#/";
});
const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());

const theme = document.getElementById("theme");
const themes = ["", "light", "dark"];
function dress(choice) {
  document.documentElement.style.colorScheme = choice || "light dark";
  theme.title = `Colours: ${choice || "as the system has them"}`;
  theme.setAttribute("aria-label", theme.title);
  try { localStorage.setItem("theme", choice); } catch { /* nothing is kept then */ }
}
let worn = "";
try { worn = localStorage.getItem("theme") || ""; } catch { /* as the system has them */ }
dress(worn);
theme.addEventListener("click", () => { worn = themes[(themes.indexOf(worn) + 1) % themes.length]; dress(worn); });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const isTyping = event.target.matches("input");
  if (event.key === "Escape") {
    if (isTyping) event.target.blur();
    else if (read(location.hash).path[0] === "s" || read(location.hash).q) location.hash = "#/";
  } else if (isTyping) return;
  else if (event.key === "/") { event.preventDefault(); document.querySelector("#search input").focus(); }
  else if (event.key === "?") help.showModal();
  else if (event.key === "t") document.querySelector(".range summary")?.click();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});
route();

// The page: two views, no framework. Everything shown is text that somebody sent, so it only ever becomes a text node.

const view = document.getElementById("view");
const age = document.getElementById("age");
let timer = 0;
let shown = "";

/** An element: attributes, then children; texts become text nodes. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const two = (n) => String(n).padStart(2, "0");
export function clock(ms) { const t = new Date(ms); return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`; }
const day = (ms) => new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
/** Seconds as people say them: 41 s, 12 min, 2 h 05. */
export function span(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)}`;
  return `${Math.round(minutes / 1440)} days`;
}
export function bytes(n) {
  if (!n) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(4, Math.floor(Math.log10(n) / 3));
  return `${Number((n / 1000 ** power).toPrecision(3))} ${units[power]}`;
}
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

const REASONS = {
  lastParticipantLeft: "last participant left", sessionClosedByServer: "closed by the application", networkDisconnect: "network lost",
  nodeCrashed: "node crashed", openviduServerStopped: "server stopped", mediaServerDisconnect: "media server lost", mediaServerReconnect: "media server restarted",
  automaticStop: "stopped by itself", recordingStoppedByServer: "recording stopped", disconnect: "left", forceDisconnectByUser: "removed by a moderator",
  forceDisconnectByServer: "removed by the application", unpublish: "stopped sending", unsubscribe: "stopped receiving",
  forceUnpublishByUser: "muted by a moderator", forceUnpublishByServer: "muted by the application", NULL: "no reason given",
};
const why = (reason) => REASONS[reason] || reason || "";
const BAD = new Set(["networkDisconnect", "mediaServerDisconnect", "mediaServerReconnect", "nodeCrashed", "openviduServerStopped"]);
const PROBLEMS = {
  abnormalEnd: "a connection was lost", iceFailed: "no media connection", mediaGap: "media was interrupted",
  mediaLost: "media stopped before the end", lowNetworkQuality: "poor network", recordingFailed: "a recording failed",
};

function name(connection) {
  const data = connection.clientData || "";
  try {
    const parsed = JSON.parse(data.split("%/%")[0]);
    for (const key of ["clientData", "name", "userName", "nickname", "user"]) if (typeof parsed[key] === "string" && parsed[key]) return parsed[key];
  } catch { /* free text */ }
  if (data && data.length < 60 && !data.startsWith("{")) return data;
  return connection.user || connection.connectionId;
}

async function ask(path) {
  const response = await fetch(path);
  const body = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(body.error || `status ${response.status}`), { hint: body.hint });
  return body;
}

function notice(error, since) {
  return el("div", { class: "notice bad", role: "alert" }, el("p", {}, `${error.message}${since ? ` since ${clock(since)}` : ""}. ${error.hint || "Trying again."}`));
}

// Now ---------------------------------------------------------------------------------------------------------------

let limit = 30;
async function now(query) {
  const q = query.get("q") || "";
  const body = await ask(`/api/sessions?limit=${limit}&q=${encodeURIComponent(q)}`);
  const live = body.live;
  const open = live.sessions.filter((s) => !q || s.sessionId.toLowerCase().includes(q.toLowerCase()))
    .sort((a, b) => b.problems.length - a.problems.length || b.connections - a.connections);
  const parts = [];
  for (const trouble of body.troubles) parts.push(el("div", { class: "notice bad", role: "alert" }, el("p", {}, trouble)));
  if (body.error) parts.push(el("div", { class: "notice" }, el("p", {}, body.error)));
  if (!q) {
    parts.push(el("div", { class: "numbers" },
      number(live.totals.sessions, "sessions open"), number(live.totals.connections, "people connected"),
      number(live.totals.publishers, "streams sent"), number(live.totals.recordings, "recordings running")));
  } else {
    parts.push(el("h1", {}, `“${q}”`), el("p", { class: "lead" }, el("a", { href: "#/" }, "× show everything")));
  }
  if (open.length) {
    parts.push(el("h2", {}, "Open now"), el("div", { class: "cards" }, open.slice(0, 60).map((s) => card(s, live.at))));
    if (open.length > 60) parts.push(el("p", { class: "quiet" }, `and ${open.length - 60} more`));
  }
  if (body.ended.length) {
    parts.push(el("h2", {}, "Ended", el("small", {}, body.total >= 10000 ? "more than 10 000" : String(body.total))), endedTable(body.ended));
    if (body.total > body.ended.length && limit < 1000) parts.push(el("button", { class: "more", onclick: () => { limit = Math.min(1000, limit * 3); route(); } }, "Show more"));
  }
  if (!open.length && !body.ended.length) parts.push(q ? el("p", { class: "empty" }, "Nothing is called like that. Whole words and their beginnings are looked for.") : welcome());
  return parts;
}

const number = (n, label) => el("div", { class: "number" }, el("b", {}, n.toLocaleString("en").replaceAll(",", "\u2009")), el("span", {}, label));

function card(s, at) {
  const bad = s.problems.length > 0;
  const streams = [count(s.publishers, "stream", "streams"), s.recordings ? "recording" : ""].filter(Boolean).join(" · ");
  return el("a", { class: bad ? "card bad" : "card", href: `#/s/${encodeURIComponent(s.uniqueSessionId)}` },
    el("b", {}, s.sessionId),
    el("p", {}, `${count(s.connections, "person", "people")} · ${streams}${s.createdAt ? ` · ${span((Math.max(at, s.lastEventAt) - s.createdAt) / 1000)}` : ""}`),
    bad ? el("p", {}, s.problems.map((p) => PROBLEMS[p] || p).join(", ")) : null,
    el("div", { class: "dots", "aria-hidden": "true" }, Array.from({ length: Math.min(s.connections, 24) }, () => el("i"))));
}

function health(s) {
  if (s.problems && s.problems.length) return el("span", { class: "tag bad", title: s.problems.map((p) => PROBLEMS[p] || p).join(", ") }, count(s.problems.length, "problem", "problems"));
  if (s.closedBy === "silence") return el("span", { class: "tag warn" }, "end unknown");
  if (s.health === "healthy") return el("span", { class: "tag" }, "healthy");
  return el("span", { class: "tag plain" }, "–");
}

function endedTable(sessions) {
  const row = (s) => el("tr", {},
    el("td", {}, el("a", { href: `#/s/${encodeURIComponent(s.uniqueSessionId)}` }, s.sessionId)),
    el("td", {}, `${day(s.createdAt)} ${clock(s.createdAt).slice(0, 5)}`),
    el("td", { class: "n" }, span(s.duration)),
    el("td", { class: "n" }, String(s.users.numberOfElements)),
    el("td", { class: "n wide" }, s.recordings.numberOfElements ? String(s.recordings.numberOfElements) : ""),
    el("td", { class: "wide" }, why(s.reason)),
    el("td", {}, health(s)));
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}, "Session"), el("th", {}, "Started"), el("th", { class: "n" }, "Length"), el("th", { class: "n" }, "People"), el("th", { class: "n wide" }, "Recordings"), el("th", { class: "wide" }, "Why it ended"), el("th", {}, "Health"))),
    el("tbody", {}, sessions.map(row))));
}

function welcome() {
  return el("div", { class: "empty" },
    el("p", {}, "No events yet. Point your OpenVidu server here, in its .env file, and restart it:"),
    el("pre", {}, `OPENVIDU_WEBHOOK=true\nOPENVIDU_WEBHOOK_ENDPOINT=${location.origin}/webhook\nOPENVIDU_WEBHOOK_HEADERS=["Authorization: Bearer YOUR-SECRET"]`),
    el("p", {}, "The secret is one of sources.default.secrets. Old CDR files come in with callscope import."));
}

// One session --------------------------------------------------------------------------------------------------------

let tab = "people";
async function session(id) {
  const s = await ask(`/api/sessions/${encodeURIComponent(id)}`);
  const model = s.summary ? fromSummaries(s) : fromEvents(s, id);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const lead = [`${day(model.start)} ${clock(model.start)} – ${model.open ? "now" : clock(model.end)} (${zone})`, span((model.end - model.start) / 1000),
    count(model.users, "person", "people"), model.open ? "" : model.silent ? "no end was told" : model.reason ? `ended: ${why(model.reason)}` : ""].filter(Boolean).join(" · ");
  const parts = [el("h1", {}, model.name), el("p", { class: "lead" }, lead, model.open ? el("span", { class: "tag" }, "open") : null)];
  const problems = model.problems.concat(model.sentences);
  if (problems.length) parts.push(el("ul", { class: "problems" }, [...new Set(problems)].map((p) => el("li", {}, p))));
  parts.push(timeline(model), tabs(s, model));
  return parts;
}

function fromSummaries(s) {
  const people = s.connections.map((c) => ({
    name: name(c), id: c.connectionId, from: c.createdAt, to: c.destroyedAt, reason: c.reason, where: where(c),
    streams: s.publishers.filter((p) => p.connectionId === c.connectionId).map(stream),
    receives: s.subscribers.filter((p) => p.connectionId === c.connectionId).length,
  })).sort((a, b) => a.from - b.from);
  const recordings = s.recordings.map((r) => ({ name: r.name, from: r.startTime, to: r.timestamp, status: r.finalStatus, size: r.size, seconds: r.duration }));
  const sentences = people.filter((p) => BAD.has(p.reason)).map((p) => `${p.name}: ${why(p.reason)} at ${clock(p.to)}`)
    .concat(recordings.filter((r) => r.status === "failed").map((r) => `recording ${r.name} failed`));
  const plain = (s.summary.problems || []).filter((p) => !(sentences.length && (p === "abnormalEnd" || p === "recordingFailed"))).map((p) => PROBLEMS[p] || p);
  return { name: s.summary.sessionId, start: s.summary.createdAt, end: s.summary.destroyedAt, reason: s.summary.reason, silent: s.summary.closedBy === "silence",
    users: s.summary.users.numberOfElements, people, recordings, problems: plain, sentences, open: false };
}

function fromEvents(s, id) {
  const people = new Map();
  const recordings = new Map();
  const end = Math.max(s.open ? s.open.lastEventAt : 0, ...s.events.map((e) => e.timestamp));
  for (const e of s.events) {
    const key = e.connectionId;
    if (e.event === "participantJoined") people.set(key, { name: name(e), id: key, from: e.timestamp, to: end, where: where(e), streams: [], receives: 0, open: true });
    const person = people.get(key);
    if (e.event === "participantLeft" && person) Object.assign(person, { to: e.timestamp, reason: e.reason, open: false });
    if (e.event === "webrtcConnectionCreated" && person) {
      if (e.connection === "OUTBOUND") person.streams.push({ id: e.streamId, from: e.timestamp, to: end, source: e.videoSource, open: true });
      else person.receives += 1;
    }
    if (e.event === "webrtcConnectionDestroyed" && person && e.connection === "OUTBOUND") {
      const sent = person.streams.find((p) => p.id === e.streamId && p.open);
      if (sent) Object.assign(sent, { to: e.timestamp, open: false });
    }
    if (e.event === "recordingStatusChanged") {
      const known = recordings.get(e.id) || { name: e.name, from: e.startTime, to: end, status: "started", open: true };
      if (e.status !== "started") Object.assign(known, { to: Math.min(known.open ? e.timestamp : known.to, e.timestamp), status: e.status, open: false, size: e.size, seconds: e.duration });
      recordings.set(e.id, known);
    }
  }
  const list = [...people.values()];
  const sentences = list.filter((p) => BAD.has(p.reason)).map((p) => `${p.name}: ${why(p.reason)} at ${clock(p.to)}`);
  const start = (s.open && s.open.createdAt) || Math.min(end, ...s.events.map((e) => e.startTime || e.timestamp));
  return { name: s.open ? s.open.sessionId : s.events[0]?.sessionId || id, start, end, users: new Set(list.map((p) => p.id)).size, people: list, recordings: [...recordings.values()],
    problems: (s.open ? s.open.problems : []).filter((p) => p !== "abnormalEnd").map((p) => PROBLEMS[p] || p), sentences, open: Boolean(s.open) };
}

const stream = (p) => ({ id: p.streamId, from: p.startTime, to: p.timestamp, source: p.videoSource, reason: p.reason, size: p.videoWidth ? `${p.videoWidth} × ${p.videoHeight}` : "" });
function where(c) {
  const client = c.client ? [c.client.browser, c.client.version, "·", c.client.os].filter(Boolean).join(" ") : "";
  return [client, c.location && c.location !== "unknown" ? c.location : ""].filter(Boolean).join(" · ");
}

function timeline(model) {
  const length = Math.max(1, model.end - model.start);
  const percent = (ms) => Math.max(0, Math.min(100, ((ms - model.start) / length) * 100));
  const bar = (from, to, kind, title, open) => {
    const node = el("i", { class: `span ${kind}${open ? " open" : ""}`, title });
    node.style.left = `${percent(from)}%`;
    node.style.width = `${Math.max(0, percent(to) - percent(from))}%`;
    return node;
  };
  const row = (kind, label, track, note) => el("div", { class: `row ${kind}` }, el("span", { title: label }, label), el("div", { class: "track" }, track), el("span", { title: note }, note || ""));
  const steps = 4;
  const ticks = Array.from({ length: steps + 1 }, (_, i) => {
    const tick = el("i", {}, clock(model.start + (length * i) / steps).slice(0, length < 600000 ? 8 : 5));
    tick.style.left = `${(100 * i) / steps}%`;
    return tick;
  });
  const rows = [row("axis", "", ticks, "")];
  for (const p of model.people.slice(0, 100)) {
    const track = [bar(p.from, p.to, "", `${p.name}: ${clock(p.from)} – ${p.open ? "now" : clock(p.to)}`, p.open)];
    if (BAD.has(p.reason)) { const mark = el("b", { class: "mark", title: why(p.reason) }, "✕"); mark.style.left = `${percent(p.to)}%`; track.push(mark); }
    rows.push(row("", p.name, track, p.where));
    for (const s of p.streams) {
      const screen = s.source === "SCREEN";
      rows.push(row("stream", screen ? "screen" : (s.source || "audio").toLowerCase(), bar(s.from, s.to, screen ? "screen" : "video", `${clock(s.from)} – ${s.open ? "now" : clock(s.to)}`, s.open), s.size));
    }
  }
  for (const r of model.recordings) {
    const note = { ready: `ready · ${span(r.seconds)} · ${bytes(r.size)}`, failed: "failed", stopped: "being processed", started: "running", none: "never became ready" }[r.status] || r.status;
    rows.push(row("stream", "recording", bar(r.from, r.to, "rec", r.name, r.open), note));
  }
  if (model.people.length > 100) rows.push(el("p", { class: "quiet" }, `and ${model.people.length - 100} more people`));
  const cross = el("div", { id: "cross", "aria-hidden": "true" }, el("b"));
  const box = el("div", { class: "time", role: "img", "aria-label": `Time line of ${count(model.people.length, "connection", "connections")}; the tables below have the same data` }, rows, cross);
  box.addEventListener("pointermove", (event) => {
    const track = box.querySelector(".axis .track").getBoundingClientRect();
    const x = event.clientX - track.left;
    cross.style.display = x >= 0 && x <= track.width ? "block" : "none";
    cross.style.left = `${track.left - box.getBoundingClientRect().left + x}px`;
    cross.firstChild.textContent = clock(model.start + (length * x) / track.width);
  });
  box.addEventListener("pointerleave", () => { cross.style.display = "none"; });
  return box;
}

function tabs(s, model) {
  const contents = {
    people: () => table(["Person", "Joined", "Left", "Length", "Why", "Client and place"], model.people.map((p) => [p.name, clock(p.from), p.open ? "still here" : clock(p.to), span((p.to - p.from) / 1000), why(p.reason), p.where])),
    streams: () => table(["From", "Source", "Size", "Started", "Length", "Why it ended"], model.people.flatMap((p) => p.streams.map((t) => [p.name, (t.source || "audio only").toLowerCase(), t.size || "", clock(t.from), span((t.to - t.from) / 1000), t.open ? "still sent" : why(t.reason)]))),
    recordings: () => table(["Recording", "Started", "Stopped", "Length", "Size", "Result"], model.recordings.map((r) => [r.name, clock(r.from), r.open ? "running" : clock(r.to), r.seconds ? span(r.seconds) : "–", bytes(r.size), r.status === "none" ? "never became ready" : r.status])),
    events: () => table(["Time", "Event", "Who", "What"], s.events.map((e) => [clock(e.timestamp), e.event || e.type || e.elastic_type, e.connectionId || "", [e.connection, e.streamId, e.status, e.state, e.newValue !== undefined ? `${e.oldValue} → ${e.newValue}` : "", why(e.reason)].filter(Boolean).join(" · ")])),
    "raw JSON": () => el("pre", { class: "json", tabindex: "0" }, JSON.stringify(s, null, 2)),
  };
  const counts = { people: model.people.length, recordings: model.recordings.length, events: s.totalEvents };
  const panel = el("div", { role: "tabpanel" }, contents[tab]());
  const buttons = Object.keys(contents).map((key) => el("button", { role: "tab", "aria-selected": String(key === tab), onclick: (event) => {
    tab = key;
    for (const other of event.target.parentNode.children) other.setAttribute("aria-selected", String(other === event.target));
    panel.replaceChildren(contents[key]());
  } }, counts[key] === undefined ? key : `${key} ${counts[key]}`));
  return el("div", {}, el("div", { class: "tabs", role: "tablist" }, buttons), panel);
}

function table(heads, rows) {
  if (!rows.length) return el("p", { class: "empty" }, "None in this session.");
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((c) => el("td", { title: c }, c)))))));
}

// Wiring -------------------------------------------------------------------------------------------------------------

let failedSince = 0;
let asked = 0;
async function route() {
  clearTimeout(timer);
  const mine = ++asked;
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const id = path.startsWith("/s/") ? decodeURIComponent(path.slice(3)) : "";
  const key = path + (query || "");
  let again = 2000;
  try {
    const parts = id ? await session(id) : await now(new URLSearchParams(query || ""));
    if (mine !== asked) return;
    document.title = id ? `${parts[0].textContent} – callscope` : "callscope";
    const selecting = String(getSelection()).length > 0;
    if (shown !== key || !selecting) view.replaceChildren(...parts);
    if (shown !== key) scrollTo(0, 0);
    shown = key;
    failedSince = 0;
    age.textContent = clock(Date.now());
    if (id) again = view.querySelector(".lead .tag") ? 3000 : 0;
  } catch (error) {
    if (mine !== asked) return;
    failedSince = failedSince || Date.now();
    const old = view.querySelector(".notice.failed");
    const box = notice(error, failedSince);
    box.classList.add("failed");
    if (old) old.replaceWith(box);
    else if (shown === key) view.prepend(box);
    else { view.replaceChildren(box); shown = key; }
    again = 5000;
  }
  if (again) timer = setTimeout(() => (document.hidden ? undefined : route()), again);
}

addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => { if (!document.hidden) route(); });
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = new FormData(event.target).get("q").trim();
  location.hash = q ? `#/?q=${encodeURIComponent(q)}` : "#/";
});
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input");
  if (event.key === "/" && !typing) { event.preventDefault(); document.querySelector("#search input").focus(); }
  if (event.key === "Escape") { if (typing) event.target.blur(); else if (location.hash.length > 2) location.hash = "#/"; }
});
route();

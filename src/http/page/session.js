// One session: what happened, to whom, when; as sentences, as a time line, as tables.

import { amount, bytes, clock, count, csv, day, download, el, isBad, minute, span, when, where, why } from "./text.js";
import { QUALITY_LOW, read } from "./story.js";
import { chips, choice } from "./explore.js";
import { ask, failure, look, toggled, zone } from "./view.js";
import { panel } from "./panel.js";
import { grid } from "./table.js";

/** An open session of which nothing was heard for so long may be over. */
const STALE_MS = 600000;
/** Of more people those with problems are seen first, and the streams of others on demand. */
const PEOPLE_MAX = 20;
const SENTENCES_MAX = 6;
/** What is told of one moment at most. */
const TROUBLES_MAX = 2;

/** The view of the session that the API describes as `s`. `catalog`: all dashboards; `note(view)` is told of how it is looked at. */
export function show(s, { view, catalog, note }) {
  const id = view.path[1];
  const model = read(s, id);
  const isStale = model.open && s.now - s.open.lastEventAt > STALE_MS;
  const until = !model.open ? model.clock(model.end) : isStale ? `now, last heard of ${when(s.open.lastEventAt, s.now)}` : "now";
  const began = `${day(model.start)} ${clock(model.start)}`;
  const lead = model.isUnjoined ? `created ${began} (${zone()}) · nobody has joined it` : [`${began} – ${until} (${zone()})`, span((model.end - model.start) / 1000), count(model.size, "person", "people"),
    model.open ? "" : model.silent ? `its end was never told${s.summary.goneSince ? `, and OpenVidu has not shown it since ${model.clock(s.summary.goneSince)}` : ""}` : model.reason ? `ended: ${why(model.reason)}` : ""].filter(Boolean).join(" · ");
  const parts = tabs(s, model, { view, note, dashboard: catalog.find((dashboard) => dashboard.ofOne) });
  return [
    el("nav", { class: "back" }, el("a", { href: "#/" }, "← All sessions")),
    el("header", { class: "title" },
      el("h1", {}, model.name, model.open ? el("span", { class: "tag", id: "open" }, "open") : null),
      el("p", { class: "lead" }, lead), further(s, model, id)),
    missing(s, model),
    problems(model, parts.events),
    (model.people.length || model.recordings.length) && !s.error ? timeline(model, id, parts.events) : null,
    parts.node,
  ].filter(Boolean);
}

/** Where else one can look, as the settings say. */
function further(s, model, id) {
  if (!s.links) return null;
  const iso = (ms) => new Date(ms).toISOString();
  const known = { session: id, name: model.name, from: iso(model.start), to: iso(model.end), from_ms: model.start, to_ms: model.end };
  const filled = (url) => url.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(known[name]));
  return el("p", { class: "further" }, s.links.map(({ label, url }) => el("a", { href: filled(url), target: "_blank", rel: "noreferrer", "data-key": `link-${label}` }, label)));
}

/** Why there is no summary, where there is none. */
function missing(s, model) {
  if (s.error) return el("div", { class: "notice" },
    el("p", {}, "Who is there now is known without the index. Since when, and what was there before, is shown once it answers."),
    el("details", { "data-key": "reason" }, el("summary", {}, "Reason"), el("p", {}, s.error)));
  if (s.truncated) return el("p", { class: "notice" }, "This session is larger than one answer: what is shown is cut. /api/search gives the rest.");
  if (s.summary) return null;
  if (model.isUnjoined) return el("p", { class: "notice plain" }, "OpenVidu removes a session that nobody joins without telling so. It counts as open, and gets a summary, once somebody is in it.");
  if (s.open?.goneSince) return el("p", { class: "notice", id: "gone" }, `OpenVidu has not shown this session since ${when(s.open.goneSince, s.now)}, though no event has ended it: its end was missed. It counts as open until one comes, or until nothing was heard of it for as long as sessions.silent_after says.`);
  const text = s.open
    ? "No summary yet: it is written when the session ends. What is shown comes from its events."
    : "No summary: the end of this session has not come. It is written when sessionDestroyed arrives, or once nothing was heard of it for as long as sessions.silent_after says. What is shown comes from its events.";
  return el("p", { class: "notice plain" }, text);
}

// View -----------------------------------------------------------------------------------------------------------------

function problems(model, lookAt) {
  if (!model.sentences.length) return null;
  const times = (at, to) => (to ? `${model.clock(at)} – ${model.clock(to)}` : model.clock(at));
  const told = ({ at, to, text }) => (Number.isFinite(at) ? el("button", { type: "button", class: "pickable", title: "Show the events around it", onclick: () => lookAt(at) }, el("time", {}, times(at, to)), text) : text);
  const item = (sentence) => el("li", {}, told(sentence));
  const shown = model.sentences.slice(0, SENTENCES_MAX);
  const rest = model.sentences.slice(SENTENCES_MAX);
  return el("section", { class: "problems", "aria-label": "Problems" },
    el("h2", {}, `⚠ ${count(model.sentences.length, "problem", "problems")}`),
    el("ul", {}, shown.map(item)),
    rest.length ? el("details", { "data-key": "problems" }, el("summary", {}, `${rest.length} more`), el("ul", {}, rest.map(item))) : null);
}

/** The session whose time line shows everybody. */
let unfolded = "";

function timeline(model, id, lookAt) {
  const length = model.end - model.start;
  const percent = (ms) => Math.max(0, Math.min(100, ((ms - model.start) / length) * 100));
  const bar = (from, to, kind, title, open) => {
    const node = el("i", { class: `span ${kind}${open ? " open" : ""}`, title });
    node.style.left = `${percent(from)}%`;
    node.style.width = `${Math.max(0, percent(to) - percent(from))}%`;
    return node;
  };
  const mark = (at, title) => {
    const node = el("b", { class: "mark", title }, "✕");
    node.style.left = `${percent(at)}%`;
    return node;
  };
  const range = (x) => `${model.clock(x.from)} – ${x.open ? "now" : model.clock(x.to)}`;
  const row = (kind, label, track, note) => el("div", { class: `row ${kind}` }, el("span", { title: label }, label), el("div", { class: "track" }, track), el("span", { title: note }, note || ""));
  const steps = 4;
  const ticks = Array.from({ length: steps + 1 }, (_, i) => {
    const tick = el("i", {}, (length < 600000 || model.isLong ? model.clock : minute)(model.start + (length * i) / steps));
    tick.style.left = `${(100 * i) / steps}%`;
    return tick;
  });
  const rows = [];
  const add = (owner, ...what) => rows.push({ owner, node: row(...what) });
  add(null, "axis", "", ticks, "");
  // Of very many, those with trouble are seen first.
  const people = model.people.length > PEOPLE_MAX ? [...model.people].sort((a, b) => Boolean(b.isBad) - Boolean(a.isBad)) : model.people;
  const most = unfolded === id ? people.length : PEOPLE_MAX;
  for (const person of people.slice(0, most)) {
    const hasStreams = people.length <= most || person.isBad;
    const track = person.connections.map((c) => bar(c.from, c.to, "", `${person.name}: ${range(c)}`, c.open));
    person.quality.forEach((q, i) => { if (q.level <= QUALITY_LOW) track.push(bar(q.at, person.quality[i + 1]?.at ?? person.connections.at(-1).to, "low", `network quality ${q.level} of 5 from ${model.clock(q.at)}`)); });
    track.push(...person.connections.filter((c) => isBad(c.reason)).map((c) => mark(c.to, `${why(c.reason)} at ${model.clock(c.to)}`)));
    track.push(...[...person.receives.values()].filter((ice) => ice.state === "FAILED").map((ice) => mark(ice.at, `could not receive from ${model.clock(ice.at)} on: no media connection`)));
    add(person, "person", person.name, track, person.where);
    for (const [source, streams] of grouped(hasStreams ? person.streams : [])) {
      const isFailed = (stream) => stream.ice?.state === "FAILED";
      const bars = streams.flatMap((stream) => [
        bar(stream.from, stream.to, isFailed(stream) ? "failed" : source === "SCREEN" ? "screen" : "video", `${range(stream)}${isFailed(stream) ? ": no media connection" : ""}`, stream.open),
        ...(stream.gaps || []).map((gap) => bar(gap.from, gap.to, gap.isLost ? "lost" : "gap", `${(gap.media || "media").toLowerCase()} stopped ${range(gap)}`)),
        isFailed(stream) ? mark(stream.ice.at, `ICE failed at ${model.clock(stream.ice.at)}`) : null,
      ]).filter(Boolean);
      const gaps = streams.flatMap((stream) => stream.gaps || []);
      const note = [streams[0].size, streams.some(isFailed) ? "no media connection" : "", gaps.length ? count(gaps.length, "interruption", "interruptions") : ""].filter(Boolean).join(" · ");
      add(person, "stream", { CAMERA: "camera", SCREEN: "screen", AUDIO: "audio", IPCAM: "camera" }[source] || source.toLowerCase(), bars, note);
    }
  }
  for (const r of model.recordings) {
    const note = { ready: `✓ ready · ${span(r.seconds)} · ${bytes(r.size)}`, failed: "✕ failed", stopped: "being processed", started: "running", none: "never became ready" }[r.status] || r.status;
    const kind = { ready: "ready", failed: "failed", none: "failed" }[r.status] || "rec";
    add(null, "stream", "recording", bar(r.from, r.to, kind, `${r.name}: ${range(r)}`, r.open), note);
  }
  const more = people.length > most ? el("button", { type: "button", class: "more", "data-key": "everybody", onclick: () => { unfolded = id; box.replaceWith(timeline(model, id, lookAt)); } }, `Show all ${people.length} people and their streams`) : null;
  const cross = el("div", { id: "cross", "aria-hidden": "true" }, el("b"));
  const box = el("div", { class: "time", role: "img", "aria-label": `Time line of ${count(people.length, "person", "people")}; the tables below have the same data` }, rows.map(({ node }) => node), more, cross);
  const moment = (event) => {
    const track = box.querySelector(".axis .track").getBoundingClientRect();
    return model.start + (length * (event.clientX - track.left)) / track.width;
  };
  box.addEventListener("click", (event) => { if (event.target.closest(".track") && !event.target.closest(".axis")) lookAt(moment(event)); });
  box.addEventListener("pointermove", (event) => {
    const track = box.querySelector(".axis .track").getBoundingClientRect();
    const x = event.clientX - track.left;
    cross.style.display = x >= 0 && x <= track.width ? "block" : "none";
    cross.style.left = `${track.left - box.getBoundingClientRect().left + x}px`;
    cross.classList.toggle("late", x > track.width * 0.8);
    const at = moment(event);
    const there = new Set(model.people.filter((person) => person.connections.some(isOn(at))));
    for (const { owner, node } of rows) node.classList.toggle("absent", owner !== null && !there.has(owner));
    cross.firstChild.textContent = [model.clock(at), `${count(there.size, "person", "people")}, ${count(model.people.flatMap((person) => person.streams).filter(isOn(at)).length, "stream", "streams")}`, ...troubles(there, at)].join(" · ");
  });
  box.addEventListener("pointerleave", () => {
    cross.style.display = "none";
    for (const { node } of rows) node.classList.remove("absent");
  });
  return box;
}

const isOn = (at) => (one) => one.from <= at && at < one.to;

/** What was wrong at a moment with those who were there. */
function troubles(people, at) {
  const found = [];
  for (const person of people) {
    const level = person.quality.findLast((q) => q.at <= at)?.level;
    if (level <= QUALITY_LOW) found.push(`${person.name}: network ${level} of 5`);
    for (const stream of person.streams.filter(isOn(at))) {
      for (const gap of (stream.gaps || []).filter(isOn(at))) found.push(`${person.name}: no ${(gap.media || "media").toLowerCase()}`);
      if (stream.ice?.state === "FAILED" && stream.ice.at <= at) found.push(`${person.name}: no media connection`);
    }
  }
  return found.length > TROUBLES_MAX ? [...found.slice(0, TROUBLES_MAX), `${found.length - TROUBLES_MAX} more`] : found;
}

function grouped(streams) {
  const groups = new Map();
  for (const stream of streams) groups.set(stream.source || "AUDIO", [...(groups.get(stream.source || "AUDIO") || []), stream]);
  return groups;
}

/** A table of texts and links. */
function table(heads, rows, empty, options) {
  if (!rows.length) return el("p", { class: "nothing" }, empty);
  const cell = (value) => (typeof value === "object" ? value : { text: value, raw: value });
  return grid({ heads: heads.map((label) => ({ label })), rows: rows.map((row) => row.map(cell)) }, options);
}

/**
 * What to call the ids of a session, as `called(field, value)`: whose a connection, a stream or an endpoint is. A stream's id holds that of its
 * connection, and so does the endpoint that sends it; the one that receives it begins with that of another. Nothing of any other id.
 */
function names(model) {
  const known = new Map();
  const times = new Map();
  for (const { person, c } of model.people.flatMap((person) => person.connections.map((c) => ({ person, c }))).sort((a, b) => a.c.from - b.c.from)) {
    const nth = (times.get(person.name) || 0) + 1;
    times.set(person.name, nth);
    // Whoever came back, or is called like somebody else, is told apart.
    known.set(c.connectionId, nth > 1 ? `${person.name} (${nth})` : person.name);
  }
  const ids = [...known.keys()].filter(Boolean).sort((a, b) => b.length - a.length);
  const what = (id) => (/(^|_)(SCR|SCREEN)_/.test(id) ? " (screen)" : "");
  const sender = (id) => known.get(ids.find((one) => id.endsWith(`_${one}`)) ?? ids.find((one) => id.startsWith(`${one}_`)));
  const flow = (id) => {
    const receiver = ids.find((one) => id.startsWith(`${one}_`));
    const from = receiver && sender(id.slice(receiver.length + 1));
    if (from) return `${known.get(receiver)} ← ${from}${what(id)}`;
    return sender(id) ? `${sender(id)} sends${what(id)}` : null;
  };
  const flows = new Map();
  return (field, value) => {
    if (field === "connectionId") return known.get(value) || null;
    if (field !== "endpoint" && field !== "streamId") return null;
    if (!flows.has(value)) flows.set(value, flow(value));
    return flows.get(value);
  };
}

/** An event in a line; opened, all that was stored of it. */
function eventLine(e, { called, clock }) {
  // Media servers number the streams of an endpoint, and tell the connection twice.
  const stream = typeof e.streamId === "string" ? e.streamId : e.endpoint || "";
  const what = [e.type && e.elastic_type === "kms" ? e.mediaType : "", e.connection === e.connectionId ? "" : e.connection, called("endpoint", stream) || stream, e.status, e.state, e.newValue !== undefined ? `quality ${e.oldValue} → ${e.newValue}` : "", why(e.reason)].filter(Boolean).join(" · ");
  const line = el("details", { class: "event", "data-at": e.timestamp, "data-key": `${e.timestamp} ${e.event || e.type} ${e.connectionId || ""} ${e.streamId || e.endpoint || ""}` },
    el("summary", {}, el("span", {}, clock(e.timestamp)), el("b", {}, String(e.event || e.type || e.elastic_type)), el("span", { title: e.connectionId }, called("connectionId", e.connectionId) || String(e.connectionId || "")), el("span", { title: stream || null }, what)));
  line.addEventListener("toggle", () => { if (line.open && line.children.length < 2) line.append(el("pre", { class: "json" }, JSON.stringify(e, null, 2))); });
  return line;
}

/** The panels of the session that is shown: they stay while it goes on, and ask for news now and then. */
let drawn = { id: "", view: null, scene: null, go: null, panels: [], asked: 0 };
const CHARTS_MS = 30000;

/** The panels of one session, over its time, and what narrows them. */
function charts(dashboard, model, { view, note }) {
  const id = view.path[1];
  // What was stored of an end may bear a time a little after it.
  const span = () => [model.start - 1000, model.end + 60000];
  const load = () => { drawn.asked = Date.now(); for (const one of drawn.panels) one.load(drawn.view, span()); };
  const head = el("div");
  const go = (next) => { drawn.view = next; note(next); narrow(); load(); };
  const narrow = () => head.replaceChildren(...[
    el("div", { class: "looked" }, dashboard.controls.filter((control) => control.field !== dashboard.ofOne).map((control) => choice(control, drawn.view, { more: drawn.scene.more, span, choose: drawn.scene.choose, called: drawn.scene.called }))),
    chips(dashboard, drawn.view, go, drawn.scene.called)].filter(Boolean));
  if (drawn.id !== id) {
    const scene = { marks: [], more: [{ field: dashboard.ofOne, value: id }], choose: (...filters) => drawn.go(toggled(drawn.view, filters)), clear: () => drawn.go({ ...drawn.view, filters: [] }), zoom: null, looks: view.looks, note: () => note(drawn.view) };
    drawn = { id, view, scene, asked: 0, panels: dashboard.rows.flatMap((row) => row.panels.map((description) => panel(description, row.height, scene))) };
  }
  // The session is drawn anew now and then, and its panels are not.
  drawn.view = view;
  drawn.go = go;
  drawn.scene.called = names(model);
  for (const one of drawn.panels) view.looks[one.id] = one.kept;
  if (!model.open || Date.now() - drawn.asked > CHARTS_MS) load();
  narrow();
  return el("div", {}, head, el("div", { class: "panels" }, drawn.panels.map((one) => one.section)));
}

const UNKNOWN = { text: "–", raw: "", sort: -1 };

const TABS = ["people", "streams", "recordings", "charts", "events", "raw"];

/** The parts of a session beside its time line. `events(at)` shows what was told at a moment. */
function tabs(s, model, { view, note, dashboard }) {
  const id = view.path[1];
  const looked = (key) => ({ kept: look(view.looks, key), note: () => note(view) });
  const find = (text) => ({ text, raw: text, search: text });
  const at = (ms, text) => (text || ms ? { text: text || model.clock(ms), raw: text || model.clock(ms), sort: ms } : UNKNOWN);
  const long = (ms) => (ms >= 0 ? { text: span(ms / 1000), raw: Math.round(ms / 1000), sort: ms } : UNKNOWN);
  const size = (n) => ({ text: bytes(n), raw: n, sort: n || 0 });
  const empty = (text) => (s.error ? "This is not known before the index answers." : text);
  let told = null;
  const contents = {
    people: () => table(["Person", "Joined", "Left", "Length", "Why", "Client and place"], model.people.flatMap((p) => p.connections.map((c) => [find(p.name), at(c.from), at(c.to, c.open ? "still here" : ""), long(c.to - c.from), why(c.reason), where(c)])), empty("Nobody has joined."), looked("people")),
    streams: () => table(["From", "Source", "Size", "Started", "Length", "Lost", "Jitter", "First media", "Why it ended"], model.people.flatMap((p) => p.streams.map((t) => [p.name, (t.source || "audio only").toLowerCase(), t.size || "", at(t.from), long(t.to - t.from), measured(t, "lossPercent", "percent"), measured(t, "jitterMs", "milliseconds"), measured(t, "firstMediaMs", "milliseconds"), t.open ? "still sent" : why(t.reason)])), empty("Nobody has sent anything."), looked("streams")),
    recordings: () => table(["Recording", "Started", "Stopped", "Length", "Size", "Result"], model.recordings.map((r) => [r.name, at(r.from), at(r.to, r.open ? "running" : ""), r.seconds ? long(r.seconds * 1000) : "–", size(r.size), r.status === "none" ? "never became ready" : r.status]), empty("Nothing was recorded."), looked("recordings")),
    charts: () => charts(dashboard, model, { view, note }),
    events: () => (told = events(s, { called: names(model), clock: model.clock })).node,
    raw: () => el("pre", { class: "json", tabindex: "0" }, JSON.stringify(s, null, 2)),
  };
  const counts = { people: model.size, ...(s.error ? {} : { recordings: model.recordings.length, events: s.totalEvents }) };
  let chosen = TABS.includes(view.path[2]) ? view.path[2] : TABS[0];
  const panel = el("div", { role: "tabpanel", id: "panel", "aria-labelledby": `tab-${TABS.indexOf(chosen)}` }, contents[chosen]());
  const choose = (key) => {
    chosen = key;
    view.path = ["s", id, key];
    note(view);
    [...list.children].forEach((button, index) => {
      const isChosen = TABS[index] === key;
      button.setAttribute("aria-selected", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
      if (isChosen) panel.setAttribute("aria-labelledby", button.id);
    });
    panel.replaceChildren(contents[key]());
  };
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": "Details" }, TABS.map((key, index) => el("button", {
    role: "tab", id: `tab-${index}`, "data-key": `tab-${index}`, "aria-controls": "panel", "aria-selected": String(key === chosen), tabindex: key === chosen ? "0" : "-1",
    onclick: () => choose(key),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(TABS[(index + step + TABS.length) % TABS.length]);
      list.querySelector("[aria-selected=true]").focus();
    },
  }, key === "raw" ? "raw JSON" : counts[key] === undefined ? key : `${key} ${counts[key]}`)));
  const exports = el("p", { class: "exports" },
    el("a", { href: `/api/sessions/${encodeURIComponent(id)}`, download: `${model.name}.json`, "data-key": "json" }, "JSON"),
    el("a", { href: "#", "data-key": "csv", onclick: (event) => { event.preventDefault(); download(`${model.name}.csv`, "text/csv", csv(people(model))); } }, "CSV"));
  const show = async (moment) => {
    choose("events");
    await told.near(moment);
    const lines = [...panel.querySelectorAll(".event")];
    const nearest = lines.reduce((best, line) => (!best || Math.abs(line.dataset.at - moment) < Math.abs(best.dataset.at - moment) ? line : best), null);
    if (!nearest) return;
    nearest.open = true;
    nearest.scrollIntoView({ block: "center" });
    nearest.firstChild.focus({ preventScroll: true });
  };
  return { node: el("section", {}, el("div", { class: "bar-tabs" }, list, exports), panel), events: show };
}

/** Events of one session that are asked for at once, besides those that came with it; and so many before and after a moment. */
const MORE = 500, AROUND = 100;
/** As far as the API reaches. */
const REACH = 10000;
const EVENTS = ["cdr", "kms", "networkQualityStats", "webrtcDebug"];

/** What was asked for of the session that is shown: it stays while the session goes on. `measured`: events and media statistics. */
let asked = { id: "", more: [], around: null, measured: null };

/** All events, the first ones at once, with people as they are `called` and times as `clock` writes them. Gives a node, and `near(moment)`, after which the events around that moment are in it. */
function events(s, words) {
  const id = s.events[0]?.uniqueSessionId;
  if (asked.id !== id) asked = { id, more: [], around: null, measured: null };
  const node = el("div");
  const search = async (query, kinds = EVENTS) => {
    const { body } = await ask(`/api/search?uniqueSessionId=${encodeURIComponent(id)}${kinds.map((kind) => `&type=${kind}`).join("")}&${query}`);
    return { total: body.total, events: body.documents.map((document) => document._source) };
  };
  const told = el("p", { class: "under", role: "alert" });
  const doing = (what) => async (event) => {
    const button = event?.target;
    if (button) button.disabled = true;
    try { told.textContent = ""; await what(); draw(); } catch (error) { told.textContent = failure(error); }
    if (button) button.disabled = false;
  };
  const button = (text, what) => el("button", { type: "button", class: "more", "data-key": text, onclick: doing(what) }, text);
  /** What comes after the first `known`, as far as the API reaches. */
  const after = (known, kinds) => search(`sort=timestamp:up&limit=${Math.min(MORE, REACH - known)}&offset=${known}`, kinds);
  const all = () => asked.measured || { total: s.totalEvents, events: [...s.events, ...asked.more] };
  const page = async () => {
    const known = asked.measured?.events || [];
    const { total, events } = await after(known.length, [...EVENTS, "webrtcStats"]);
    asked.measured = { total, events: [...known, ...events] };
  };
  const next = async () => {
    if (asked.measured) return page();
    asked.more.push(...(await after(all().events.length)).events);
  };
  const draw = () => {
    if (!s.events.length) { node.replaceChildren(el("p", { class: "nothing" }, "No events are stored.")); return; }
    const { total, events } = all();
    const shown = asked.around || events;
    const isCut = !asked.around && id && total > shown.length && shown.length < REACH;
    node.replaceChildren(...[
      asked.around ? el("p", { class: "quiet" }, `${count(shown.length, "event", "events")} around ${words.clock(asked.moment)}. `, button("Show all from the beginning", () => { asked.around = null; })) : null,
      !asked.around && id ? el("p", { class: "quiet" }, asked.measured ? button("Leave out media statistics", () => { asked.measured = null; }) : button("With media statistics", page)) : null,
      el("div", { class: "events" }, shown.map((e) => eventLine(e, words))),
      isCut ? button(`Show more: ${shown.length} of ${total} are shown`, next) : null, told].filter(Boolean));
  };
  draw();
  const near = doing(async () => {
    const { total, events } = all();
    const isThere = !id || events.length >= total || events.at(-1).timestamp >= asked.moment;
    if (isThere) { asked.around = null; return; }
    const [before, later] = await Promise.all([search(`sort=timestamp:down&limit=${AROUND}&to=${asked.moment + 1}`), search(`sort=timestamp:up&limit=${AROUND}&from=${asked.moment + 1}`)]);
    asked.around = [...before.events.reverse(), ...later.events];
  });
  return { node, near: (moment) => { asked.moment = Math.round(moment); return near(); } };
}

/** Who was there, as rows. */
function people(model) {
  const rows = model.people.flatMap((p) => p.connections.map((c) => [p.name, c.connectionId, new Date(c.from).toISOString(), c.open ? "" : new Date(c.to).toISOString(), Math.round((c.to - c.from) / 1000), c.reason, where(c)]));
  return [["person", "connectionId", "joined", "left", "seconds", "reason", "client and place"], ...rows];
}

/** What was measured of a stream; nothing where nobody has. */
function measured(stream, figure, unit) {
  const value = stream.quality?.[figure];
  return value === undefined ? "" : amount(value, unit);
}

// One session: what happened, to whom, when; as sentences, as a time line, as tables.

import { bytes, clock, count, csv, day, download, el, isBad, minute, name, problem, span, when, where, why } from "./text.js";
import { panel } from "./panel.js";
import { grid } from "./table.js";

/** Media that stopped at least this long before its stream's end is lost; a shorter stop belongs to the end. */
const LOST_MS = 3000;
const QUALITY_LOW = 2;
/** An open session of which nothing was heard for so long may be over. */
const STALE_MS = 600000;
const PEOPLE_MAX = 100;
const SENTENCES_MAX = 6;

let tab = "people";

/** The view of the session that the API describes as `s`; `catalog`: all dashboards. */
export function show(s, id, catalog) {
  const model = read(s, id);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const isStale = model.open && s.now - model.end > STALE_MS;
  const until = !model.open ? clock(model.end) : isStale ? `last heard of ${when(model.end, s.now)}` : "now";
  const lead = [`${day(model.start)} ${clock(model.start)} – ${until} (${zone})`, span((model.end - model.start) / 1000), count(model.people.length, "person", "people"),
    model.open ? "" : model.silent ? "its end was never told" : model.reason ? `ended: ${why(model.reason)}` : ""].filter(Boolean).join(" · ");
  return [
    el("nav", { class: "back" }, el("a", { href: "#/" }, "← All sessions")),
    el("header", { class: "title" },
      el("h1", {}, model.name, model.open ? el("span", { class: "tag", id: "open" }, "open") : null),
      el("p", { class: "lead" }, lead)),
    missing(s),
    problems(model),
    model.people.length || model.recordings.length ? timeline(model) : null,
    tabs(s, model, id, catalog.find((dashboard) => dashboard.ofOne)),
  ].filter(Boolean);
}

/** Why there is no summary, where there is none. */
function missing(s) {
  if (s.error) return el("p", { class: "notice" }, `Only what is known of it at this moment is shown: ${s.error}.`);
  if (s.summary) return s.truncated ? el("p", { class: "notice" }, "This session is larger than one answer: what is shown is cut. /api/search gives the rest.") : null;
  const text = s.open
    ? "No summary yet: it is written when the session ends. What is shown comes from its events."
    : "No summary: the end of this session has not come. It is written when sessionDestroyed arrives, or once nothing was heard of it for as long as sessions.silent_after says. What is shown comes from its events.";
  return el("p", { class: "notice plain" }, text);
}

// Model ----------------------------------------------------------------------------------------------------------------

function read(s, id) {
  const users = new Map(s.events.filter((e) => e.user && e.connectionId).map((e) => [e.connectionId, e.user]));
  const { connections, streams, recordings, end } = s.summary ? fromSummaries(s) : fromEvents(s, users);
  const people = new Map();
  for (const c of connections) {
    const known = c.user && c.userIdSource !== "connection" ? c.user : c.connectionId;
    const person = people.get(known) || { name: name(c), where: where(c), connections: [], streams: [], quality: [], from: c.from };
    people.set(known, person);
    person.connections.push(c);
    person.from = Math.min(person.from, c.from);
    person.streams.push(...streams.filter((stream) => stream.connectionId === c.connectionId));
  }
  for (const person of people.values()) for (const part of [person.connections, person.streams]) part.sort((a, b) => a.from - b.from);
  const list = [...people.values()].sort((a, b) => a.from - b.from);
  const start = s.summary ? s.summary.createdAt : (s.open && s.open.createdAt) || Math.min(end, ...s.events.map((e) => e.startTime || e.timestamp));
  const model = { start, end: Math.max(end, start + 1), people: list, recordings, open: Boolean(s.open) && !s.summary, sentences: [], told: new Set() };
  model.name = (s.summary || s.open || s.events[0] || {}).sessionId || id;
  model.reason = s.summary?.reason;
  model.silent = s.summary?.closedBy === "silence";
  watchMedia(s.events, model);
  judge(model);
  const codes = s.summary?.problems || s.open?.problems || [];
  for (const code of codes) if (!model.told.has(code)) model.sentences.push({ at: Infinity, text: `${problem(code)[0].toUpperCase()}${problem(code).slice(1)}.` });
  model.sentences.sort((a, b) => a.at - b.at);
  return model;
}

function fromSummaries(s) {
  const connections = s.connections.map((c) => ({ ...c, from: c.createdAt, to: c.destroyedAt }));
  const streams = s.publishers.map((p) => ({ connectionId: p.connectionId, id: p.streamId, from: p.startTime, to: p.timestamp, source: p.videoSource, reason: p.reason, size: p.videoWidth ? `${p.videoWidth} × ${p.videoHeight}` : "" }));
  const recordings = s.recordings.map((r) => ({ name: r.name, from: r.startTime, to: r.timestamp, status: r.finalStatus, size: r.size, seconds: r.duration }));
  return { connections, streams, recordings, end: s.summary.destroyedAt };
}

function fromEvents(s, users) {
  const connections = new Map();
  const recordings = new Map();
  const streams = [];
  const end = Math.max(s.open ? s.open.lastEventAt : 0, ...s.events.map((e) => e.timestamp));
  for (const e of s.events) {
    if (e.event === "participantJoined") connections.set(e.connectionId, { ...e, user: users.get(e.connectionId), from: e.timestamp, to: end, reason: "", open: true });
    // An end alone is enough: it tells the start too.
    if (e.event === "participantLeft" && !connections.has(e.connectionId)) connections.set(e.connectionId, { ...e, user: users.get(e.connectionId), from: e.startTime || e.timestamp });
    const connection = connections.get(e.connectionId);
    if (e.event === "participantLeft") Object.assign(connection, { to: e.timestamp, reason: e.reason, open: false });
    if (e.event === "webrtcConnectionCreated" && e.connection === "OUTBOUND") streams.push({ connectionId: e.connectionId, id: e.streamId, from: e.timestamp, to: end, source: e.videoSource, open: true });
    if (e.event === "webrtcConnectionDestroyed" && e.connection === "OUTBOUND") {
      const sent = streams.find((stream) => stream.id === e.streamId && stream.open);
      if (sent) Object.assign(sent, { to: e.timestamp, reason: e.reason, open: false });
      else streams.push({ connectionId: e.connectionId, id: e.streamId, from: e.startTime || e.timestamp, to: e.timestamp, source: e.videoSource, reason: e.reason });
    }
    if (e.event === "recordingStatusChanged") {
      const known = recordings.get(e.id) || { name: e.name, from: e.startTime, to: end, status: "started", open: true };
      if (e.status !== "started") Object.assign(known, { to: known.open ? e.timestamp : known.to, status: e.status, open: false, size: e.size, seconds: e.duration });
      recordings.set(e.id, known);
    }
  }
  return { connections: [...connections.values()], streams, recordings: [...recordings.values()], end };
}

/** Hangs onto people and streams what the media server saw: gaps, ICE that failed, network quality. */
function watchMedia(events, model) {
  const flows = new Map();
  const owner = new Map(model.people.flatMap((person) => person.connections.map((c) => [c.connectionId, person])));
  const streams = model.people.flatMap((person) => person.streams);
  const streamOf = (e) => streams.find((stream) => stream.id === e.endpoint && stream.from <= e.timestamp + 1000 && e.timestamp <= stream.to + 1000);
  for (const e of events) {
    const person = owner.get(e.connectionId);
    if (!person) continue;
    if (Number.isInteger(e.newValue) && e.oldValue !== undefined) person.quality.push({ at: e.timestamp, level: e.newValue });
    if (typeof e.type !== "string" || !e.endpoint) continue;
    const stream = streamOf(e);
    if (e.type.startsWith("IceComponentState")) {
      if (stream) stream.ice = { state: e.state, at: e.timestamp };
      else if (e.endpoint.startsWith(`${e.connectionId}_`)) (person.receives ||= new Map()).set(e.endpoint, { state: e.state, at: e.timestamp });
    }
    if (e.type.startsWith("MediaFlowInState") && stream) {
      const key = `${e.endpoint} ${e.mediaType}`;
      const stopped = flows.get(key);
      if (e.state === "NOT_FLOWING" && !stopped) flows.set(key, { at: e.timestamp, media: e.mediaType, stream });
      if (e.state === "FLOWING" && stopped) { (stream.gaps ||= []).push({ from: stopped.at, to: e.timestamp, media: stopped.media }); flows.delete(key); }
    }
  }
  for (const { at, media, stream } of flows.values()) if (stream.to - at >= LOST_MS) (stream.gaps ||= []).push({ from: at, to: stream.to, media, isLost: true });
}

/** What went wrong, in sentences that somebody can read out: who, what, when, and what usually causes it. */
function judge(model) {
  const tell = (code, at, text, cause) => { model.told.add(code); model.sentences.push({ at, text, cause }); };
  const media = (gap, stream) => (gap.media === "AUDIO" ? "audio" : stream.source === "SCREEN" ? "screen" : "video");
  for (const person of model.people) {
    const own = (from) => { const sentences = model.sentences.slice(from); person.isBad ||= sentences.length > 0; };
    const before = model.sentences.length;
    for (const c of person.connections) {
      if (!isBad(c.reason)) continue;
      const back = person.connections.find((other) => other.from >= c.to && other !== c);
      tell("abnormalEnd", c.to, `${person.name}${c.reason === "networkDisconnect" ? " lost the network" : `: ${why(c.reason)}`} at ${clock(c.to)}${back ? `, back at ${clock(back.from)}` : ""}.`);
    }
    for (const stream of person.streams) {
      if (stream.ice?.state === "FAILED") tell("iceFailed", stream.ice.at, `${person.name} could not send ${stream.source === "SCREEN" ? "the screen" : "video"}: ICE failed ${span((stream.ice.at - stream.from) / 1000)} after the start, at ${clock(stream.ice.at)}.`, "A firewall, or a TURN server that is missing or wrong, is the usual cause.");
      for (const gap of stream.gaps || []) {
        if (gap.isLost) tell("mediaLost", gap.from, `${person.name}’s ${media(gap, stream)} stopped at ${clock(gap.from)} and did not come back.`);
        else tell("mediaGap", gap.from, `${person.name}’s ${media(gap, stream)} stopped for ${span((gap.to - gap.from) / 1000)} at ${clock(gap.from)}.`);
      }
    }
    const failed = [...(person.receives || new Map()).values()].filter((ice) => ice.state === "FAILED");
    if (failed.length) tell("iceFailed", failed[0].at, `${person.name} could not receive ${count(failed.length, "stream", "streams")}: ICE failed at ${clock(failed[0].at)}.`, "A firewall, or a TURN server that is missing or wrong, is the usual cause.");
    const worst = person.quality.reduce((least, q) => (q.level < (least?.level ?? 6) ? q : least), null);
    if (worst && worst.level <= QUALITY_LOW) tell("lowNetworkQuality", worst.at, `${person.name}’s network quality fell to ${worst.level} of 5 at ${clock(worst.at)}.`);
    own(before);
  }
  for (const r of model.recordings) if (r.status === "failed") tell("recordingFailed", r.to, `The recording ${r.name} failed.`);
  if (isBad(model.reason)) tell("abnormalEnd", model.end, `The session ended at ${clock(model.end)}: ${why(model.reason)}.`);
}

// View -----------------------------------------------------------------------------------------------------------------

function problems(model) {
  if (!model.sentences.length) return null;
  const item = (sentence) => el("li", {}, sentence.text, sentence.cause ? el("small", {}, ` ${sentence.cause}`) : null);
  const shown = model.sentences.slice(0, SENTENCES_MAX);
  const rest = model.sentences.slice(SENTENCES_MAX);
  return el("section", { class: "problems", "aria-label": "Problems" },
    el("h2", {}, `⚠ ${count(model.sentences.length, "problem", "problems")}`),
    el("ul", {}, shown.map(item)),
    rest.length ? el("details", { "data-key": "problems" }, el("summary", {}, `${rest.length} more`), el("ul", {}, rest.map(item))) : null);
}

function timeline(model) {
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
  const range = (x) => `${clock(x.from)} – ${x.open ? "now" : clock(x.to)}`;
  const row = (kind, label, track, note) => el("div", { class: `row ${kind}` }, el("span", { title: label }, label), el("div", { class: "track" }, track), el("span", { title: note }, note || ""));
  const steps = 4;
  const ticks = Array.from({ length: steps + 1 }, (_, i) => {
    const tick = el("i", {}, (length < 600000 ? clock : minute)(model.start + (length * i) / steps));
    tick.style.left = `${(100 * i) / steps}%`;
    return tick;
  });
  const rows = [row("axis", "", ticks, "")];
  // Of very many, those with trouble are seen first.
  const people = model.people.length > 20 ? [...model.people].sort((a, b) => Boolean(b.isBad) - Boolean(a.isBad)) : model.people;
  for (const person of people.slice(0, PEOPLE_MAX)) {
    const track = person.connections.map((c) => bar(c.from, c.to, "", `${person.name}: ${range(c)}`, c.open));
    person.quality.forEach((q, i) => { if (q.level <= QUALITY_LOW) track.push(bar(q.at, person.quality[i + 1]?.at ?? person.connections.at(-1).to, "low", `network quality ${q.level} of 5 from ${clock(q.at)}`)); });
    track.push(...person.connections.filter((c) => isBad(c.reason)).map((c) => mark(c.to, `${why(c.reason)} at ${clock(c.to)}`)));
    rows.push(row("person", person.name, track, person.where));
    for (const [source, streams] of Map.groupBy ? Map.groupBy(person.streams, (stream) => stream.source || "AUDIO") : grouped(person.streams)) {
      const isFailed = (stream) => stream.ice?.state === "FAILED";
      const bars = streams.flatMap((stream) => [
        bar(stream.from, stream.to, isFailed(stream) ? "failed" : source === "SCREEN" ? "screen" : "video", `${range(stream)}${isFailed(stream) ? ": no media connection" : ""}`, stream.open),
        ...(stream.gaps || []).map((gap) => bar(gap.from, gap.to, gap.isLost ? "lost" : "gap", `${(gap.media || "media").toLowerCase()} stopped ${range(gap)}`)),
        isFailed(stream) ? mark(stream.ice.at, `ICE failed at ${clock(stream.ice.at)}`) : null,
      ]).filter(Boolean);
      const gaps = streams.flatMap((stream) => stream.gaps || []);
      const note = [streams[0].size, streams.some(isFailed) ? "no media connection" : "", gaps.length ? count(gaps.length, "interruption", "interruptions") : ""].filter(Boolean).join(" · ");
      rows.push(row("stream", { CAMERA: "camera", SCREEN: "screen", AUDIO: "audio", IPCAM: "camera" }[source] || source.toLowerCase(), bars, note));
    }
  }
  for (const r of model.recordings) {
    const note = { ready: `✓ ready · ${span(r.seconds)} · ${bytes(r.size)}`, failed: "✕ failed", stopped: "being processed", started: "running", none: "never became ready" }[r.status] || r.status;
    const kind = { ready: "ready", failed: "failed", none: "failed" }[r.status] || "rec";
    rows.push(row("stream", "recording", bar(r.from, r.to, kind, `${r.name}: ${range(r)}`, r.open), note));
  }
  if (people.length > PEOPLE_MAX) rows.push(el("p", { class: "quiet" }, `and ${people.length - PEOPLE_MAX} more people, in the table below`));
  const cross = el("div", { id: "cross", "aria-hidden": "true" }, el("b"));
  const box = el("div", { class: "time", role: "img", "aria-label": `Time line of ${count(people.length, "person", "people")}; the tables below have the same data` }, rows, cross);
  box.addEventListener("pointermove", (event) => {
    const track = box.querySelector(".axis .track").getBoundingClientRect();
    const x = event.clientX - track.left;
    cross.style.display = x >= 0 && x <= track.width ? "block" : "none";
    cross.style.left = `${track.left - box.getBoundingClientRect().left + x}px`;
    cross.classList.toggle("late", x > track.width * 0.8);
    cross.firstChild.textContent = clock(model.start + (length * x) / track.width);
  });
  box.addEventListener("pointerleave", () => { cross.style.display = "none"; });
  return box;
}

function grouped(streams) {
  const groups = new Map();
  for (const stream of streams) groups.set(stream.source || "AUDIO", [...(groups.get(stream.source || "AUDIO") || []), stream]);
  return groups;
}

/** A table of texts and links. */
function table(heads, rows, empty) {
  if (!rows.length) return el("p", { class: "nothing" }, empty);
  const cell = (value) => (typeof value === "object" ? value : { text: value, raw: value });
  return grid({ heads: heads.map((label) => ({ label })), rows: rows.map((row) => row.map(cell)) }, {});
}

/** An event in a line; opened, all that was stored of it. */
function eventLine(e) {
  const what = [e.type && e.elastic_type === "kms" ? e.mediaType : "", e.connection, e.streamId && typeof e.streamId === "string" ? e.streamId : "", e.status, e.state, e.newValue !== undefined ? `quality ${e.oldValue} → ${e.newValue}` : "", why(e.reason)].filter(Boolean).join(" · ");
  const line = el("details", { class: "event", "data-key": `${e.timestamp} ${e.event || e.type} ${e.connectionId || ""} ${e.streamId || e.endpoint || ""}` },
    el("summary", {}, el("span", {}, clock(e.timestamp)), el("b", {}, String(e.event || e.type || e.elastic_type)), el("span", {}, String(e.connectionId || "")), el("span", {}, what)));
  line.addEventListener("toggle", () => { if (line.open && line.children.length < 2) line.append(el("pre", { class: "json" }, JSON.stringify(e, null, 2))); });
  return line;
}

/** The panels of one session, over its time. */
function charts(dashboard, id, model) {
  const scene = { marks: [], more: [{ field: dashboard.ofOne, value: id }], choose: () => {}, zoom: () => {} };
  const view = { filters: [] };
  // What was stored of an end may bear a time a little after it.
  const times = [model.start - 1000, model.end + 60000];
  return el("div", { class: "panels" }, dashboard.rows.flatMap((row) => row.panels.map((description) => {
    const one = panel(description, row.height, scene);
    one.load(view, times);
    return one.section;
  })));
}

function tabs(s, model, id, dashboard) {
  const find = (text) => ({ text, raw: text, search: text });
  const contents = {
    people: () => table(["Person", "Joined", "Left", "Length", "Why", "Client and place"], model.people.flatMap((p) => p.connections.map((c) => [find(p.name), clock(c.from), c.open ? "still here" : clock(c.to), span((c.to - c.from) / 1000), why(c.reason), where(c)])), "Nobody has joined."),
    streams: () => table(["From", "Source", "Size", "Started", "Length", "Why it ended"], model.people.flatMap((p) => p.streams.map((t) => [p.name, (t.source || "audio only").toLowerCase(), t.size || "", clock(t.from), span((t.to - t.from) / 1000), t.open ? "still sent" : why(t.reason)])), "Nobody has sent anything."),
    recordings: () => table(["Recording", "Started", "Stopped", "Length", "Size", "Result"], model.recordings.map((r) => [r.name, clock(r.from), r.open ? "running" : clock(r.to), r.seconds ? span(r.seconds) : "–", bytes(r.size), r.status === "none" ? "never became ready" : r.status]), "Nothing was recorded."),
    charts: () => charts(dashboard, id, model),
    events: () => (s.events.length ? el("div", { class: "events" }, s.totalEvents > s.events.length ? el("p", { class: "quiet" }, `The first ${s.events.length} of ${s.totalEvents}.`) : null, s.events.map(eventLine)) : el("p", { class: "nothing" }, "No events are stored.")),
    "raw JSON": () => el("pre", { class: "json", tabindex: "0" }, JSON.stringify(s, null, 2)),
  };
  const counts = { people: model.people.length, recordings: model.recordings.length, events: s.totalEvents };
  const panel = el("div", { role: "tabpanel", id: "panel", "aria-labelledby": `tab-${Object.keys(contents).indexOf(tab)}` }, contents[tab]());
  const choose = (key, list) => {
    tab = key;
    [...list.children].forEach((button, index) => {
      const isChosen = Object.keys(contents)[index] === key;
      button.setAttribute("aria-selected", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
      if (isChosen) { button.focus(); panel.setAttribute("aria-labelledby", button.id); }
    });
    panel.replaceChildren(contents[key]());
  };
  const keys = Object.keys(contents);
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": "Details" }, keys.map((key, index) => el("button", {
    role: "tab", id: `tab-${index}`, "data-key": `tab-${index}`, "aria-controls": "panel", "aria-selected": String(key === tab), tabindex: key === tab ? "0" : "-1",
    onclick: () => choose(key, list),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); choose(keys[(index + step + keys.length) % keys.length], list); }
    },
  }, counts[key] === undefined ? key : `${key} ${counts[key]}`)));
  const exports = el("p", { class: "exports" },
    el("a", { href: `/api/sessions/${encodeURIComponent(id)}`, download: `${model.name}.json`, "data-key": "json" }, "JSON"),
    el("a", { href: "#", "data-key": "csv", onclick: (event) => { event.preventDefault(); download(`${model.name}.csv`, "text/csv", csv(people(model))); } }, "CSV"));
  return el("section", {}, el("div", { class: "bar-tabs" }, list, exports), panel);
}

/** Who was there, as rows. */
function people(model) {
  const rows = model.people.flatMap((p) => p.connections.map((c) => [p.name, c.connectionId, new Date(c.from).toISOString(), c.open ? "" : new Date(c.to).toISOString(), Math.round((c.to - c.from) / 1000), c.reason, where(c)]));
  return [["person", "connectionId", "joined", "left", "seconds", "reason", "client and place"], ...rows];
}

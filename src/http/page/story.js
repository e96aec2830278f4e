// What happened in a session: read out of its summaries, or of its events as long as there are none.

import { clock, day, isBad, name, problem, where } from "./text.js";

/** Media that stopped at least this long before its stream's end is lost; a shorter stop belongs to the end. */
const LOST_MS = 3000;
/** Media that stopped for less only stutters. */
const GAP_MS = 1000;
export const QUALITY_LOW = 2;

/** The people, streams, recordings and problems of the session that the API describes as `s`. */
export function read(s, id) {
  // Of very many events, those that tell how it went came beside the first ones.
  const events = (s.facts?.length ? [...s.facts] : [...s.events]).sort((a, b) => a.timestamp - b.timestamp);
  s = { ...s, events };
  const users = new Map([...s.events.filter((e) => e.user && e.connectionId).map((e) => [e.connectionId, e.user]), ...Object.entries(s.present || {})]);
  const told = fromEvents(s, users);
  const { connections, streams, recordings, end } = s.summary ? fromSummaries(s, told) : told;
  const people = new Map();
  for (const c of connections) {
    const known = c.user && c.userIdSource !== "connection" ? c.user : c.connectionId;
    const person = people.get(known) || { name: name(c), where: where(c), connections: [], streams: [], quality: [], receives: new Map(), from: c.from };
    people.set(known, person);
    person.connections.push(c);
    person.from = Math.min(person.from, c.from);
    person.streams.push(...streams.filter((stream) => stream.connectionId === c.connectionId));
  }
  for (const person of people.values()) for (const part of [person.connections, person.streams]) part.sort((a, b) => a.from - b.from);
  // Without the index it is known who is there, and not since when.
  if (s.error) for (const [connectionId, user] of Object.entries(s.present || {})) {
    const c = { connectionId, user, open: true };
    if (!people.has(user)) people.set(user, { name: name(c), where: "", connections: [], streams: [], quality: [], receives: new Map(), from: 0 });
    people.get(user).connections.push(c);
  }
  const list = [...people.values()].sort((a, b) => a.from - b.from);
  const start = s.summary ? s.summary.createdAt : (s.open && s.open.createdAt) || Math.min(end, ...s.events.map((e) => e.startTime || e.timestamp));
  const size = s.summary?.users?.numberOfElements ?? (s.error ? s.open?.users : null) ?? list.length;
  const model = { start, end: Math.max(end, start + 1), people: list, size, recordings, open: Boolean(s.open) && !s.summary, sentences: [] };
  // Of more than one day, times have theirs.
  model.isLong = new Date(model.start).toDateString() !== new Date(model.end).toDateString();
  model.clock = model.isLong ? (ms) => `${day(ms, true)}\u00a0${clock(ms)}` : clock;
  model.name = ((s.summary || s.open || s.events[0] || {}).sessionId ?? id).trim() || "(no name)";
  model.reason = s.summary?.reason;
  // OpenVidu removes what nobody joins without telling so: such a session counts as open nowhere.
  model.isUnjoined = !s.summary && !s.open && !s.error && s.events.every((e) => e.event === "sessionCreated");
  model.silent = s.summary?.closedBy === "silence";
  watchMedia(s.events, model);
  for (const person of model.people) person.isBad = person.connections.some((c) => isBad(c.reason));
  tellProblems(s, model);
  return model;
}

/** What went wrong, as the summary or the open session tells it, in the order of time. */
function tellProblems(s, model) {
  const details = s.summary?.problemDetails || s.problemDetails || [];
  for (const { code, text, at, connectionId, streamId } of details) {
    const person = model.people.find((one) => one.connections.some((c) => c.connectionId === connectionId));
    if (person) person.isBad = true;
    const low = code === "lowNetworkQuality" ? worst(person)?.at : undefined;
    // What is no moment is of all the time of a stream, or of whoever receives it.
    const all = person?.streams.find((one) => one.id === streamId) || person?.connections.find((one) => one.connectionId === connectionId);
    model.sentences.push({ at: at ?? low ?? all?.from ?? Infinity, to: at === undefined && low === undefined ? all?.to : undefined, text });
  }
  // Of very many only some are told.
  const codes = s.summary?.problems || s.open?.problems || [];
  for (const code of codes) if (!details.some((detail) => detail.code === code)) model.sentences.push({ at: Infinity, text: `${problem(code)[0].toUpperCase()}${problem(code).slice(1)}.` });
  model.sentences.sort((a, b) => a.at - b.at);
}

/** When somebody's network was at its worst. */
const worst = (person) => person?.quality.reduce((least, q) => (q.level < (least?.level ?? 6) ? q : least), null);

function fromSummaries(s, told) {
  const connections = s.connections.map((c) => ({ ...c, from: c.createdAt, to: c.destroyedAt }));
  const streams = s.publishers.map((p) => ({ connectionId: p.connectionId, id: p.streamId, from: p.startTime, to: p.timestamp, source: p.videoSource, reason: p.reason, size: p.videoWidth ? `${p.videoWidth} × ${p.videoHeight}` : "", quality: p.quality }));
  // One that failed before it was stopped has no summary, and neither has one of which nothing but the start was told.
  const others = told.recordings.filter((one) => !s.recordings.some((r) => r.id === one.id)).map((one) => (one.open ? { ...one, open: false, status: "none" } : one));
  const recordings = s.recordings.map((r) => ({ id: r.id, name: r.name, from: r.startTime, to: r.timestamp, status: r.finalStatus, size: r.size, seconds: r.duration }));
  return { connections, streams, recordings: [...recordings, ...others], end: s.summary.destroyedAt };
}

function fromEvents(s, users) {
  const connections = new Map();
  const recordings = new Map();
  const streams = [];
  const end = Math.max(s.open ? s.now : 0, ...s.events.map((e) => e.timestamp));
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
      const known = recordings.get(e.id) || { id: e.id, name: e.name, from: e.startTime, to: end, status: "started", open: true };
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
    // The second component is for RTCP, which browsers send with the media.
    if (e.type.startsWith("IceComponentState") && !(e.componentId > 1)) {
      if (stream) stream.ice = { state: e.state, at: e.timestamp };
      else person.receives.set(e.endpoint, { state: e.state, at: e.timestamp });
    }
    if (e.type.startsWith("MediaFlowInState") && stream) {
      const key = `${e.endpoint} ${e.mediaType}`;
      const stopped = flows.get(key);
      if (e.state === "NOT_FLOWING" && !stopped) flows.set(key, { at: e.timestamp, media: e.mediaType, stream });
      if (e.state === "FLOWING" && stopped) {
        if (e.timestamp - stopped.at >= GAP_MS) (stream.gaps ||= []).push({ from: stopped.at, to: e.timestamp, media: stopped.media });
        flows.delete(key);
      }
    }
  }
  for (const { at, media, stream } of flows.values()) if (stream.to - at >= LOST_MS) (stream.gaps ||= []).push({ from: at, to: stream.to, media, isLost: true });
}

// What happened in a session: read out of its summaries, or of its events as long as there are none, and told in sentences.

import { amount, clock, count, isBad, name, problem, span, where, why } from "./text.js";

/** Media that stopped at least this long before its stream's end is lost; a shorter stop belongs to the end. */
const LOST_MS = 3000;
/** Media that stopped for less only stutters. */
const GAP_MS = 1000;
export const QUALITY_LOW = 2;
/** So many people who were lost within so many milliseconds were lost together. */
const TOGETHER = { people: 4, ms: 5000 };

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
  for (const code of codes) if (!model.told.has(code)) tellDetails(s, model, code);
  model.sentences.sort((a, b) => a.at - b.at);
  return model;
}

/** What was measured is told by the summary. */
function tellDetails(s, model, code) {
  const details = (s.summary?.problemDetails || []).filter((detail) => detail.code === code);
  for (const { text, at, connectionId } of details) {
    model.sentences.push({ at: at ?? Infinity, text });
    for (const person of model.people) if (person.connections.some((c) => c.connectionId === connectionId)) person.isBad = true;
  }
  if (!details.length) model.sentences.push({ at: Infinity, text: `${problem(code)[0].toUpperCase()}${problem(code).slice(1)}.` });
}

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
    if (e.type.startsWith("IceComponentState")) {
      if (stream) stream.ice = { state: e.state, at: e.timestamp };
      else if (e.endpoint.startsWith(`${e.connectionId}_`)) (person.receives ||= new Map()).set(e.endpoint, { state: e.state, at: e.timestamp });
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

/** What went wrong, in sentences that somebody can read out: who, what, when, and what usually causes it. */
function judge(model) {
  const tell = (code, at, text, cause) => { model.told.add(code); model.sentences.push({ at, text, cause }); };
  const lost = [];
  const media = (gap, stream) => (gap.media === "AUDIO" ? "audio" : stream.source === "SCREEN" ? "screen" : "video");
  for (const person of model.people) {
    const own = (from) => { const sentences = model.sentences.slice(from); person.isBad ||= sentences.length > 0; };
    const before = model.sentences.length;
    for (const c of person.connections) {
      if (!isBad(c.reason)) continue;
      lost.push({ person, c, back: person.connections.find((other) => other.from >= c.to && other !== c) });
    }
    for (const stream of person.streams) {
      if (stream.ice?.state === "FAILED") tell("iceFailed", stream.ice.at, `${person.name} could not send ${stream.source === "SCREEN" ? "the screen" : "video"}: ICE failed ${span((stream.ice.at - stream.from) / 1000)} after the start, at ${clock(stream.ice.at)}.`, "A firewall, or a TURN server that is missing or wrong, is the usual cause.");
      for (const gap of stream.gaps || []) {
        if (gap.isLost) tell("mediaLost", gap.from, `${person.name}’s ${media(gap, stream)} stopped at ${clock(gap.from)} and did not come back.`);
        else tell("mediaGap", gap.from, `${person.name}’s ${media(gap, stream)} stopped for ${amount(gap.to - gap.from, "milliseconds")} at ${clock(gap.from)}.`);
      }
    }
    const failed = [...(person.receives || new Map()).values()].filter((ice) => ice.state === "FAILED");
    if (failed.length) tell("iceFailed", failed[0].at, `${person.name} could not receive ${count(failed.length, "stream", "streams")}: ICE failed at ${clock(failed[0].at)}.`, "A firewall, or a TURN server that is missing or wrong, is the usual cause.");
    const worst = person.quality.reduce((least, q) => (q.level < (least?.level ?? 6) ? q : least), null);
    if (worst && worst.level <= QUALITY_LOW) tell("lowNetworkQuality", worst.at, `${person.name}’s network quality fell to ${worst.level} of 5 at ${clock(worst.at)}.`);
    own(before);
  }
  tellLost(lost, tell);
  for (const r of model.recordings) if (r.status === "failed") tell("recordingFailed", r.to, `The recording ${r.name} failed.`);
  if (isBad(model.reason)) tell("abnormalEnd", model.end, `The session ended at ${clock(model.end)}: ${why(model.reason)}.`);
}

/** Tells who did not mean to leave: many at one moment in one sentence. */
function tellLost(lost, tell) {
  lost.sort((a, b) => a.c.to - b.c.to);
  const groups = [];
  for (const one of lost) {
    const group = groups.at(-1);
    if (group && group[0].c.reason === one.c.reason && one.c.to - group[0].c.to <= TOGETHER.ms) group.push(one);
    else groups.push([one]);
  }
  for (const group of groups) {
    const what = (c) => (c.reason === "networkDisconnect" ? " lost the network" : `: ${why(c.reason)}`);
    for (const { person } of group) person.isBad = true;
    if (group.length >= TOGETHER.people) {
      const [{ c }] = group;
      const back = group.filter((one) => one.back).length;
      tell("abnormalEnd", c.to, `${count(group.length, "person", "people")}${what(c)} at ${clock(c.to)}: ${group.slice(0, 3).map((one) => one.person.name).join(", ")} and ${group.length - 3} more${back ? `; ${back} came back` : ""}.`);
    } else for (const { person, c, back } of group) tell("abnormalEnd", c.to, `${person.name}${what(c)} at ${clock(c.to)}${back ? `, back at ${clock(back.from)}` : ""}.`);
  }
}

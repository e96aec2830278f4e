//! What the panels show of a month, against the same figures counted in the lines of its events. Nothing here reads what
//! callscope makes of them: a line is JSON, and a figure is a walk over lines.

use std::collections::{BTreeMap, BTreeSet};

use callscope::panels::answer::{Choice, Key, View};
use callscope::panels::model::{Split, Value as Measured};
use callscope::panels::zone::Zone;
use callscope::panels::{self, Panel};
use callscope::sink::embedded::EmbeddedIndex;
use serde_json::Value;

use crate::month::{self, COUNTED_EVERY, DAY, START, a_month_and_the_odd_cases};

/// Figures by the parts of a panel, whose names are put together.
type Figures = BTreeMap<String, f64>;

/// As seen from a place where days begin elsewhere than in UTC.
fn month() -> View {
    let zone = Zone::named("Europe/Madrid").unwrap();
    View { from: START, to: START + 31 * DAY, zone, filters: Vec::new() }
}

/// When clocks were put back there: from two hours ahead of UTC to one.
const PUT_BACK: i64 = 1_698_541_200_000;

/// Midnight before `time` there.
fn midnight(time: i64) -> i64 {
    let ahead = |time: i64| 3_600_000 * if time < PUT_BACK { 2 } else { 1 };
    let midnight = time - (time + ahead(time)).rem_euclid(DAY);
    // On the day itself clocks showed midnight before they were put back.
    midnight - (ahead(midnight) - ahead(time))
}

/// The documents of the month, in an index.
struct Shown {
    index: EmbeddedIndex,
    _folder: tempfile::TempDir,
}

impl Shown {
    fn of(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        month::import(lines, "embedded", folder.path(), &[]);
        let index = month::index(folder.path());
        Self { index, _folder: folder }
    }

    /// One value of each part of a panel.
    fn values(&self, panel: &Panel, metric: &str) -> Figures {
        self.values_in(panel, metric, &month())
    }

    fn values_in(&self, panel: &Panel, metric: &str, view: &View) -> Figures {
        let place = panel.shown().position(|shown| shown.id.value == metric).unwrap();
        let answer = self.index.panel(panel, view).unwrap();
        let part = |part: &panels::answer::Part| {
            let keys: Vec<String> = part.keys.iter().map(named).collect();
            (keys.join(" / "), part.values[place].number().unwrap_or(f64::NAN))
        };
        answer.parts.iter().map(part).collect()
    }
}

fn named(key: &Key) -> String {
    match key {
        Key::Time(time) => time.to_string(),
        Key::Number(None) => "below".to_owned(),
        Key::Number(Some(number)) => number.to_string(),
        Key::Text(text) => text.clone(),
        Key::Tile(..) => panic!("no figure is on a map"),
    }
}

fn panel(id: &str) -> Panel {
    let mut all = panels::all().iter().flat_map(panels::Dashboard::panels);
    all.find(|panel| panel.id.value == id).unwrap().clone()
}

/// `panel` of the whole time at once. A rate is then what there was.
fn whole(panel: &Panel) -> Panel {
    let mut whole = panel.clone();
    whole.by.retain(|split| !matches!(split, Split::Time(_)));
    whole
}

const BROWSERS: [&str; 4] = ["Chrome", "Safari", "Firefox", "Microsoft Edge"];
/// By what stands in the text of a platform.
const SYSTEMS: [(&str, &str); 5] = [
    ("(Android ", "Android"),
    ("(iOS ", "iOS"),
    ("on Linux", "Linux"),
    ("on Windows", "Windows"),
    ("on OS X", "macOS"),
];

/// The lines of the month.
struct Lines(Vec<Value>);

/// Session and connection.
type Who<'a> = (&'a str, &'a str);
/// Session, connection and endpoint.
type Endpoint<'a> = (&'a str, &'a str, &'a str);

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or("")
}

fn integer(line: &Value, name: &str) -> i64 {
    line[name].as_i64().unwrap()
}

fn session(line: &Value) -> &str {
    text(line, "uniqueSessionId")
}

fn who(line: &Value) -> Who<'_> {
    (session(line), text(line, "connectionId"))
}

fn endpoint(line: &Value) -> Endpoint<'_> {
    (session(line), text(line, "connectionId"), text(line, "endpoint"))
}

/// Seconds that an end tells by its times.
fn seconds(line: &Value) -> i64 {
    (integer(line, "timestamp") - integer(line, "startTime")) / 1000
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(value: i64) -> f64 {
    value as f64
}

fn sum(values: impl Iterator<Item = i64>) -> f64 {
    number(values.sum())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / count(&values)
}

fn count<T>(values: &[T]) -> f64 {
    number(i64::try_from(values.len()).unwrap())
}

/// How many there are of each name.
fn each<T: Ord>(named: impl Iterator<Item = (String, T)>) -> Figures {
    let mut all: BTreeMap<String, Vec<T>> = BTreeMap::new();
    named.for_each(|(name, one)| all.entry(name).or_default().push(one));
    all.into_iter().map(|(name, ones)| (name, count(&ones))).collect()
}

/// How many different ones there are of each name.
fn different<T: Ord>(named: impl Iterator<Item = (String, T)>) -> Figures {
    each(named.collect::<BTreeSet<_>>().into_iter())
}

fn total<T: Ord>(ones: impl Iterator<Item = T>) -> Figures {
    each(ones.map(|one| (String::new(), one)))
}

fn one(value: f64) -> Figures {
    [(String::new(), value)].into()
}

/// Of `100 * part / whole`, by name.
fn percent(part: &Figures, whole: &Figures) -> Figures {
    let share = |(name, all): (&String, &f64)| {
        (name.clone(), 100.0 * part.get(name).copied().unwrap_or(0.0) / all)
    };
    whole.iter().map(share).collect()
}

/// How many values begin in each class, also of those that nothing is in.
fn classes(values: impl Iterator<Item = i64>, at: &[i64]) -> Figures {
    let names = at.iter().map(i64::to_string).chain(["below".to_owned()]);
    let mut all: Figures = names.map(|name| (name, 0.0)).collect();
    for value in values {
        let begin = at.iter().rfind(|begin| value >= **begin);
        *all.entry(begin.map_or("below".to_owned(), i64::to_string)).or_default() += 1.0;
    }
    all
}

impl Lines {
    fn of(lines: &str) -> Self {
        let view = month();
        let is_in = |line: &Value| {
            line["timestamp"].as_i64().is_some_and(|time| (view.from..view.to).contains(&time))
        };
        Self(lines.lines().map(|line| serde_json::from_str(line).unwrap()).filter(is_in).collect())
    }

    /// The lines in which `field` says one of `words`.
    fn saying(&self, field: &'static str, words: &'static [&str]) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| words.contains(&text(line, field)))
    }

    fn event(&self, name: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| text(line, "event") == name)
    }

    fn streams(&self, name: &'static str) -> impl Iterator<Item = (String, &Value)> {
        self.event(name).map(|line| {
            let role =
                if text(line, "connection") == "OUTBOUND" { "publisher" } else { "subscriber" };
            (format!("{role}Summary"), line)
        })
    }

    fn recordings(&self, status: &'static str) -> impl Iterator<Item = &Value> {
        self.event("recordingStatusChanged").filter(move |line| text(line, "status") == status)
    }

    /// What the media server saw of ICE.
    fn ice(&self) -> impl Iterator<Item = &Value> {
        self.saying("type", &["IceComponentStateChanged"])
    }

    /// Media statistics that tell `field`.
    fn statistics(&self, field: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line[field].is_number() && line["endpoint"].is_string())
    }

    /// How much a counter grew from the first to the last time that it was told, of all endpoints together.
    fn growth(&self, counter: &'static str) -> f64 {
        let mut told: BTreeMap<_, (i64, i64)> = BTreeMap::new();
        for line in self.statistics(counter) {
            let now = integer(line, counter);
            let span = told.entry((endpoint(line), text(line, "mediaType"))).or_insert((now, now));
            span.1 = now;
        }
        sum(told.values().map(|(first, last)| last - first))
    }

    /// What each connection told when it joined.
    fn people(&self) -> BTreeMap<Who<'_>, &Value> {
        self.event("participantJoined").map(|line| (who(line), line)).collect()
    }

    /// Who each connection belongs to: whoever the media server names, else itself.
    fn users(&self) -> BTreeMap<Who<'_>, &str> {
        let mut users: BTreeMap<Who<'_>, &str> = BTreeMap::new();
        for line in self.0.iter().filter(|line| line["user"].is_string()) {
            let user = users.entry(who(line)).or_insert(text(line, "user"));
            *user = (*user).min(text(line, "user"));
        }
        self.people().keys().map(|who| (*who, users.get(who).copied().unwrap_or(who.1))).collect()
    }

    fn users_of_sessions(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut sessions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((session, _), user) in self.users() {
            sessions.entry(session).or_default().insert(user);
        }
        sessions
    }

    /// Browser and system of each connection that tells both.
    fn clients(&self) -> BTreeMap<Who<'_>, (&'static str, &'static str)> {
        let client = |line: &Value| {
            let platform = text(line, "platform");
            let browser = BROWSERS.iter().find(|browser| platform.starts_with(**browser))?;
            let (_, system) = SYSTEMS.iter().find(|(mark, _)| platform.contains(mark))?;
            Some((*browser, *system))
        };
        let people = self.people();
        people.iter().filter_map(|(who, line)| Some((*who, client(line)?))).collect()
    }

    /// Spans of media that stopped, until it flowed again or its stream ended, with whose it was, milliseconds.
    fn gaps(&self) -> Vec<(Who<'_>, i64)> {
        let mut stopped: BTreeMap<(Who<'_>, &str), BTreeMap<&str, i64>> = BTreeMap::new();
        let mut gaps = Vec::new();
        for line in &self.0 {
            let time = integer(line, "timestamp");
            if text(line, "event") == "webrtcConnectionDestroyed" {
                let stream = text(line, "streamId");
                let name = match text(line, "connection") {
                    "OUTBOUND" => stream.to_owned(),
                    _ => format!("{}_{stream}", text(line, "connectionId")),
                };
                let own = stopped.get(&(who(line), name.as_str()));
                let first = own.and_then(|kinds| kinds.values().min());
                gaps.extend(first.map(|then| (who(line), time - then)));
            }
            if !text(line, "type").starts_with("MediaFlow") {
                continue;
            }
            let own = stopped.entry((who(line), text(line, "endpoint"))).or_default();
            match text(line, "state") {
                "NOT_FLOWING" => drop(own.insert(text(line, "mediaType"), time)),
                _ => {
                    let then = own.remove(text(line, "mediaType"));
                    gaps.extend(then.map(|then| (who(line), time - then)));
                }
            }
        }
        gaps
    }

    /// Of each cluster, of how many spans the most hold a moment at which what is open is counted.
    fn most_at_once<'l>(spans: impl Iterator<Item = (&'l str, i64, i64)>) -> Figures {
        let mut clusters: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
        for (cluster, from, to) in spans {
            clusters.entry(cluster).or_default().push((from, to));
        }
        let most = |(cluster, spans): (&str, Vec<_>)| {
            (cluster.to_owned(), number(Self::most_of(spans.into_iter())))
        };
        clusters.into_iter().map(most).filter(|(_, most)| *most > 0.0).collect()
    }

    /// Of how many spans the most hold a moment at which what is open is counted.
    fn most_of(spans: impl Iterator<Item = (i64, i64)>) -> i64 {
        let mut changes: BTreeMap<i64, i64> = BTreeMap::new();
        let next = |time: i64| {
            time.div_euclid(COUNTED_EVERY) + i64::from(time.rem_euclid(COUNTED_EVERY) > 0)
        };
        for (from, to) in spans {
            *changes.entry(next(from)).or_default() += 1;
            *changes.entry(next(to)).or_default() -= 1;
        }
        let mut open = 0;
        let after = changes.values().map(|change| {
            open += change;
            open
        });
        after.max().unwrap()
    }

    /// How many events of a name at most came from one count to the next.
    fn most_between(&self, name: &'static str) -> f64 {
        let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
        for line in self.event(name) {
            *counts
                .entry((integer(line, "timestamp") - 1).div_euclid(COUNTED_EVERY))
                .or_default() += 1;
        }
        number(counts.into_values().max().unwrap())
    }

    /// Where, and from beginning to end, told by the end.
    fn spans(&self, end: &'static str) -> impl Iterator<Item = (&str, i64, i64)> {
        self.event(end).map(span)
    }
}

fn cluster(line: &Value) -> &str {
    line["cluster_id"].as_str().unwrap_or("no cluster")
}

fn span(line: &Value) -> (&str, i64, i64) {
    (cluster(line), integer(line, "startTime"), integer(line, "timestamp"))
}

/// Panel, value, and what it has to show.
type Expected = (&'static str, &'static str, Figures);

fn of_use(lines: &Lines) -> Vec<Expected> {
    let ended = || lines.event("sessionDestroyed");
    let users = lines.users();
    let in_sessions = lines.users_of_sessions();
    let day = |line: &Value| midnight(integer(line, "startTime")).to_string();
    let of_day = |number: fn(&Value) -> i64| {
        let mut days = Figures::new();
        ended().for_each(|line| *days.entry(day(line)).or_default() += self::number(number(line)));
        days
    };
    let streamed = |role: &'static str| {
        let ends = lines.streams("webrtcConnectionDestroyed");
        sum(ends.filter(|(known, _)| known == role).map(|(_, line)| seconds(line)))
    };
    let roles = ["publisherSummary", "subscriberSummary"];
    let sizes = in_sessions.values().map(|users| i64::try_from(users.len()).unwrap());
    let open_people = lines.event("participantLeft");
    let lost = |line: &&Value| ["networkDisconnect", "nodeCrashed"].contains(&text(line, "reason"));
    let left = total(lines.event("participantLeft").map(who));
    let sent = roles.map(|role| (role.to_owned(), streamed(role)));
    vec![
        ("totals", "sessions", total(ended().map(session))),
        (
            "totals",
            "users",
            one(count(&users.values().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())),
        ),
        ("totals", "streamed", one(roles.map(streamed).iter().sum())),
        ("totals", "mean", one(mean(ended().map(|line| number(seconds(line)))))),
        ("health-totals", "sessions", total(ended().map(session))),
        ("sessions-by-day", "sessions", of_day(|_| 1)),
        ("sessions-by-day", "longest", {
            let mut days = Figures::new();
            for line in ended() {
                let longest = days.entry(day(line)).or_default();
                *longest = longest.max(number(seconds(line)));
            }
            days
        }),
        ("session-size", "sessions", classes(sizes.clone(), &[2, 3, 6, 11, 31, 101])),
        ("users-over-time", "users", one(sum(sizes))),
        (
            "streams-started",
            "streams",
            each(lines.streams("webrtcConnectionCreated").map(|(role, line)| {
                let way = if role == "publisherSummary" { "Sent" } else { "Received" };
                (way.to_owned(), who(line))
            })),
        ),
        ("streamed-time", "streamed", sent.into()),
        ("joins-and-leaves", "joined", total(lines.event("participantJoined").map(who))),
        ("joins-and-leaves", "left", left.clone()),
        (
            "reasons-of-leaving",
            "people",
            each(open_people.map(|line| (text(line, "reason").to_owned(), who(line)))),
        ),
        (
            "reasons-of-ending",
            "sessions",
            each(ended().map(|line| (text(line, "reason").to_owned(), session(line)))),
        ),
        (
            "abnormal-leaves",
            "share",
            percent(&total(lines.event("participantLeft").filter(lost).map(who)), &left),
        ),
        (
            "lost-sessions",
            "people",
            each(
                lines
                    .event("participantLeft")
                    .filter(|line| text(line, "reason") == "nodeCrashed")
                    .map(|line| (session(line).to_owned(), who(line))),
            ),
        ),
    ]
}

fn of_places_and_clients(lines: &Lines) -> Vec<Expected> {
    let users = lines.users();
    let (people, clients) = (lines.people(), lines.clients());
    let place = |who: &Who<'_>| text(people[who], "location").to_owned();
    let bad = lines
        .event("participantLeft")
        .filter(|line| ["networkDisconnect", "nodeCrashed"].contains(&text(line, "reason")));
    let connections = each(users.keys().map(|who| (place(who), *who)));
    let client = |who: &Who<'_>| match clients.get(who) {
        Some((browser, system)) => format!("{browser} / {system}"),
        None => format!("{} / not told", text(people[who], "platform")),
    };
    vec![
        ("locations", "users", different(users.iter().map(|(who, user)| (place(who), *user)))),
        (
            "locations",
            "share",
            percent(&each(bad.map(|line| (place(&who(line)), who(line)))), &connections),
        ),
        ("locations", "connections", connections),
        ("clients", "connections", each(users.keys().map(|who| (client(who), *who)))),
    ]
}

fn of_what_was_open(lines: &Lines) -> Vec<Expected> {
    let created: BTreeMap<&str, i64> = lines
        .event("sessionCreated")
        .map(|line| (session(line), integer(line, "timestamp")))
        .collect();
    let sessions = lines.event("sessionDestroyed").filter_map(|line| {
        Some((cluster(line), *created.get(session(line))?, integer(line, "timestamp")))
    });
    let sessions: Vec<_> = sessions.collect();
    let recordings: Vec<_> = lines.recordings("stopped").map(span).collect();
    let spans = |end: &'static str| lines.spans(end).collect::<Vec<_>>();
    let (people, streams) = (spans("participantLeft"), spans("webrtcConnectionDestroyed"));
    // What is counted together has to be there at once.
    let meets = |(one, from, to): &(&str, i64, i64)| {
        sessions.iter().any(|(other, begin, end)| one != other && begin < to && from < end)
    };
    assert!(sessions.iter().any(meets), "no two clusters have a session at once");
    let clusters = Lines::most_at_once(people.iter().copied());
    assert!(month::CLUSTERS.iter().all(|cluster| clusters.contains_key(*cluster)), "{clusters:?}");
    let together = |spans: &[(&str, i64, i64)]| {
        one(number(Lines::most_of(spans.iter().map(|(_, from, to)| (*from, *to)))))
    };
    assert!(clusters.values().all(|most| together(&people)[""] > *most), "{clusters:?}");
    vec![
        ("concurrency", "sessions", together(&sessions)),
        ("concurrency", "connections", together(&people)),
        ("concurrency", "streams", together(&streams)),
        ("connections-by-cluster", "connections", clusters),
        ("sessions-by-cluster", "sessions", Lines::most_at_once(sessions.iter().copied())),
        ("streams-by-cluster", "streams", Lines::most_at_once(streams.iter().copied())),
        ("recordings-at-once", "recordings", Lines::most_at_once(recordings.iter().copied())),
        ("load", "recordings", together(&recordings)),
        ("busiest-minute", "joined", one(lines.most_between("participantJoined"))),
        ("busiest-minute", "left", one(lines.most_between("participantLeft"))),
    ]
}

fn of_media(lines: &Lines) -> Vec<Expected> {
    let clients = lines.clients();
    let ice = |states: &'static [&str]| {
        let found = lines.ice().filter(|line| states.contains(&text(line, "state")));
        total(found.map(endpoint).collect::<BTreeSet<_>>().into_iter())[""]
    };
    let by_browser =
        |line: &Value| clients.get(&who(line)).map_or("IPCAM", |(browser, _)| browser).to_owned();
    let failed = lines.ice().filter(|line| text(line, "state") == "FAILED");
    let all = different(lines.ice().map(|line| (by_browser(line), endpoint(line))));
    let some = different(failed.map(|line| (by_browser(line), endpoint(line))));
    let gathered = lines
        .saying("type", &["IceGatheringDone"])
        .map(|line| integer(line, "msSinceEndpointCreation"));
    let pairs = lines.saying("type", &["NewCandidatePairSelected"]).map(|line| {
        let kind =
            |end: &str| text(&line["candidatePair"], end).rsplit(' ').next().unwrap().to_owned();
        (format!("{} / {}", kind("remoteCandidate"), kind("localCandidate")), endpoint(line))
    });
    let (lost, received) = (lines.growth("packetsLost"), lines.growth("packetsReceived"));
    let loss = one(100.0 * lost / (lost + received));
    let average = |field: &'static str, of: f64| {
        one(mean(lines.statistics(field).map(|line| of * line[field].as_f64().unwrap())))
    };
    let gaps = lines.gaps();
    let levels = lines.0.iter().filter(|line| line["newValue"].is_number());
    let failing = |(browser, all): (&String, &f64)| {
        (browser.clone(), 100.0 * some.get(browser).copied().unwrap_or(0.0) / all)
    };
    vec![
        (
            "ice-outcome",
            "endpoints",
            [
                ("connected".to_owned(), ice(&["CONNECTED", "READY"])),
                ("failed".to_owned(), ice(&["FAILED"])),
            ]
            .into(),
        ),
        ("ice-by-browser", "share", all.iter().map(failing).collect()),
        ("ice-by-browser", "all", all),
        (
            "gathering-time",
            "endpoints",
            classes(gathered, &[50, 100, 200, 300, 500, 1000, 2000, 5000]),
        ),
        ("candidate-pairs", "endpoints", different(pairs)),
        ("packet-loss", "lossIn", loss.clone()),
        ("strip-loss", "lossIn", loss),
        ("strip-jitter", "publishers", average("jitter", 1000.0)),
        ("strip-rtt", "subscribers", average("rtt", 1000.0)),
        ("strip-bitrate", "subscribers", average("targetBitrate", 1.0)),
        ("media-packets", "received", one(received)),
        ("media-packets", "sent", one(lines.growth("packetsSent"))),
        ("media-traffic", "received", one(8.0 * lines.growth("bytesReceived"))),
        ("repairs", "nack", one(lines.growth("nackCount"))),
        ("interruptions", "gaps", one(count(&gaps))),
        (
            "interruptions",
            "connections",
            total(gaps.iter().map(|(whose, _)| *whose).collect::<BTreeSet<_>>().into_iter()),
        ),
        ("interruptions", "time", one(sum(gaps.iter().map(|(_, gap)| *gap)))),
        (
            "network-quality",
            "connections",
            different(levels.map(|line| (line["newValue"].to_string(), who(line)))),
        ),
    ]
}

fn of_recordings(lines: &Lines) -> Vec<Expected> {
    let [ready, failed] = ["ready", "failed"]
        .map(|status| number(i64::try_from(lines.recordings(status).count()).unwrap()));
    let told = |field: &'static str| {
        lines.recordings("ready").map(|line| line[field].as_f64().unwrap()).sum()
    };
    let modes =
        lines.recordings("ready").map(|line| (text(line, "outputMode").to_owned(), session(line)));
    let stops =
        lines.recordings("stopped").map(|line| (text(line, "reason").to_owned(), session(line)));
    let recorded = one(told("duration"));
    // Each by itself: sessions of one name have recordings of one id.
    let finished = ["ready", "failed"].into_iter().flat_map(|status| lines.recordings(status));
    let finished = finished.map(|line| {
        let name = format!("{} / {}", session(line), text(line, "id"));
        (name, line["duration"].as_f64().unwrap())
    });
    vec![
        ("recording-gallery", "duration", finished.collect()),
        ("recording-totals", "ready", one(ready)),
        ("recording-totals", "failed", one(failed)),
        ("recording-totals", "share", one(100.0 * ready / (ready + failed))),
        ("recording-totals", "recorded", recorded),
        ("recording-totals", "bytes", one(told("size"))),
        ("recording-modes", "recordings", each(modes)),
        ("recording-stops", "recordings", each(stops)),
    ]
}

#[test]
fn what_panels_show_is_what_was_told() {
    let text = a_month_and_the_odd_cases(300_000);
    let shown = Shown::of(&text);
    let lines = Lines::of(&text);
    let expected = [of_use, of_places_and_clients, of_what_was_open, of_media, of_recordings]
        .map(|figures| figures(&lines))
        .concat();
    let mut wrong = Vec::new();
    for (id, metric, expected) in &expected {
        let panel = panel(id);
        // Days are what this one is about.
        let panel = if *id == "sessions-by-day" { panel } else { whole(&panel) };
        let mut shown = shown.values(&panel, metric);
        // What came and went between two counts is counted, and was open at none of them.
        shown.retain(|part, value| *value != 0.0 || expected.contains_key(part));
        assert!(expected.values().any(|value| *value > 0.0), "{id} {metric} shows nothing");
        if !is_same(&shown, expected) {
            wrong.push(format!("{id} {metric}: shown {shown:?}, told {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    every_step_adds_up(&shown);
    a_bit_rate_is_what_there_was_however_short_a_step_is(&shown, &lines);
    a_chosen_cluster_is_what_is_counted(&shown, &lines);
    panels_agree_on_the_same_people(&shown);
}

/// Of samples that lie further apart than steps, each is about all the time since the one before.
fn a_bit_rate_is_what_there_was_however_short_a_step_is(shown: &Shown, lines: &Lines) {
    let mut told: BTreeMap<_, Vec<(i64, i64)>> = BTreeMap::new();
    for line in lines.statistics("bytesReceived") {
        let key = (endpoint(line), text(line, "mediaType"));
        told.entry(key)
            .or_default()
            .push((integer(line, "timestamp"), integer(line, "bytesReceived")));
    }
    let rate = |(from, to): ((i64, i64), (i64, i64))| {
        number(8_000 * (to.1 - from.1)) / number(to.0 - from.0)
    };
    let ((session, _, _), _) = told.iter().find(|(_, samples)| samples.len() > 3).unwrap().0;
    // Sound and picture together, as they were at each sample.
    let mut expected: BTreeMap<(String, i64), f64> = BTreeMap::new();
    for (((_, _, endpoint), _), samples) in told.iter().filter(|(((of, _, _), _), _)| of == session)
    {
        for pair in samples.windows(2) {
            *expected.entry(((*endpoint).to_owned(), pair[1].0)).or_default() +=
                rate((pair[0], pair[1]));
        }
    }
    let (from, to) =
        expected.keys().fold((i64::MAX, 0), |(from, to), (_, at)| (from.min(*at), to.max(*at)));
    let one = vec![Choice::Value((*session).to_owned())];
    let filters = vec![("uniqueSessionId".to_owned(), one)];
    let view = View { from: from - 60_000, to: to + 60_000, filters, ..month() };
    let panel = panel("session-sent");
    let answer = shown.index.panel(&panel, &view).unwrap();
    assert!(answer.step.unwrap() < 300_000 && !answer.parts.is_empty());
    for part in &answer.parts {
        let [Key::Text(endpoint), Key::Time(at)] = part.keys.as_slice() else { panic!("{part:?}") };
        let step = *at..at + answer.step.unwrap();
        let known =
            expected.iter().find(|((of, at), _)| of == endpoint && step.contains(at)).unwrap();
        let rate = part.values[0].number().unwrap();
        assert!((rate - known.1).abs() < 1e-6 * known.1, "{part:?} {known:?}");
    }
}

/// What was open is that of one cluster where it is chosen.
fn a_chosen_cluster_is_what_is_counted(shown: &Shown, lines: &Lines) {
    let people = Lines::most_at_once(lines.spans("participantLeft"));
    let streams = Lines::most_at_once(lines.spans("webrtcConnectionDestroyed"));
    for cluster in month::CLUSTERS {
        let chosen = vec![Choice::Value(cluster.to_owned())];
        let view = View { filters: vec![("cluster_id".to_owned(), chosen)], ..month() };
        for (id, metric, expected) in [
            ("concurrency", "connections", people[cluster]),
            ("concurrency", "streams", streams[cluster]),
            ("load", "connections", people[cluster]),
            ("load-and-loss", "connections", people[cluster]),
        ] {
            let told = shown.values_in(&whole(&panel(id)), metric, &view);
            assert_eq!(told, one(expected), "{id} {metric} of {cluster}");
        }
        for id in ["busiest-minute", "peaks-by-day", "busy-hours"] {
            let answer = shown.index.panel(&panel(id), &view).unwrap();
            assert!(answer.documents > 0, "{id} of {cluster}");
        }
    }
}

/// Narrowed to people, panels that show one figure show the same.
fn panels_agree_on_the_same_people(shown: &Shown) {
    let chosen = |field: &str, panel_id: &str, place: usize| -> Vec<(String, String)> {
        let parts = shown.index.panel(&panel(panel_id), &month()).unwrap().parts;
        let values: BTreeSet<String> = parts.iter().map(|part| named(&part.keys[place])).collect();
        values.into_iter().map(|value| (field.to_owned(), value)).collect()
    };
    let browsers = chosen("client.browser", "clients", 0);
    let systems = chosen("client.os", "clients", 1);
    let places = chosen("location", "locations", 0);
    assert!(browsers.len() > 2 && systems.len() > 2 && places.len() > 2);
    // Of very many the first ones.
    let of_some = |field: &str| -> Vec<(String, String)> {
        let parts = shown.index.panel(&panels::made::values(field), &month()).unwrap().parts;
        let known = parts.iter().map(|part| (field.to_owned(), named(&part.keys[0])));
        known.take(5).collect()
    };
    let (users, connections) = (of_some("user"), of_some("connectionId"));
    assert!(users.len() == 5 && connections.len() == 5);
    let mut filled = 0;
    for (field, value) in [browsers, systems, places, users, connections].concat() {
        let filters = vec![(field, vec![Choice::Value(value.clone())])];
        let view = View { filters, ..month() };
        let all = |(id, metric): (&str, &str)| -> f64 {
            let parts = shown.values_in(&whole(&panel(id)), metric, &view);
            parts.into_values().filter(|number| !number.is_nan()).sum()
        };
        for same in [
            &[
                ("totals", "sessions"),
                ("sessions-by-day", "sessions"),
                ("session-size", "sessions"),
            ][..],
            &[
                ("totals", "streamed"),
                ("sessions-by-day", "streamed"),
                ("billing", "streamed"),
                ("streamed-time", "streamed"),
            ],
            &[("sessions-by-day", "users"), ("users-over-time", "users")],
            &[("clients", "connections"), ("locations", "connections")],
        ] {
            let told: Vec<f64> = same.iter().copied().map(all).collect();
            assert!(
                told.iter().all(|one| (one - told[0]).abs() < 0.5),
                "{value}: {same:?} {told:?}"
            );
            filled += usize::from(told[0] > 0.0);
        }
        // What events alone tell is told of the same people.
        let told = [("reasons-of-leaving", "people"), ("totals", "sessions")].map(all);
        assert!(
            told.iter().all(|one| *one > 0.0) || all(("totals", "streamed")) == 0.0,
            "{value}: {told:?}"
        );
    }
    // Of whoever told nothing but a place nothing was streamed.
    assert!(filled > 40, "{filled} figures");
}

/// What is counted and added up in steps of time is what there is in the whole time.
fn every_step_adds_up(shown: &Shown) {
    let mut count = 0;
    for panel in panels::all().iter().flat_map(panels::Dashboard::panels) {
        let [rest @ .., Split::Time(_)] = panel.by.as_slice() else { continue };
        let adds_up = panel.shown().filter(|metric| {
            matches!(metric.value, Measured::Count | Measured::Sum(_)) && metric.per.is_none()
        });
        for metric in adds_up {
            let mut steps = Figures::new();
            for (keys, value) in shown.values(panel, &metric.id.value) {
                let name = if rest.is_empty() { "" } else { keys.rsplit_once(" / ").unwrap().0 };
                *steps.entry(name.to_owned()).or_default() +=
                    if value.is_nan() { 0.0 } else { value };
            }
            let mut whole = shown.values(&whole(panel), &metric.id.value);
            // Of nothing there is no step.
            whole.retain(|_, value| *value != 0.0);
            assert!(
                is_same(&steps, &whole),
                "{} {}: {steps:?} {whole:?}",
                panel.id.value,
                metric.id.value
            );
            count += 1;
        }
    }
    assert!(count >= 10, "{count} values");
}

fn is_same(left: &Figures, right: &Figures) -> bool {
    let is_near = |(left, right): (&f64, &f64)| (left - right).abs() <= 1e-9 * left.abs().max(1.0);
    left.keys().eq(right.keys()) && left.values().zip(right.values()).all(is_near)
}

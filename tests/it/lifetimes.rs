//! Sessions as time passes: a whole lane, fed in cycles, whose clock follows the events.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use callscope::checkpoint::{Checkpoint, Disk, Progress};
use callscope::config::Config;
use callscope::document::Document;
use callscope::enrich::place::GeoIp;
use callscope::lane::fold::Folder;
use callscope::lane::outlet::Outlet;
use callscope::lane::overflow::Overflow;
use callscope::lane::{Item, Lane};
use callscope::live::Live;
use callscope::metrics::Metrics;
use callscope::record::{Input, Position, Record};
use callscope::sessions::{Keeping, Limits, Sessions};
use callscope::simulate::rng::Rng;
use callscope::sink::{Sink, SinkError, Written};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::story::{START, Story};
use crate::support::{Bench, Store, WALL, config};

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Keeps documents in memory.
struct Memory(Arc<Mutex<Store>>);

impl Sink for Memory {
    async fn setup(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, documents: &[Document]) -> Result<Vec<Written>, SinkError> {
        let mut store = self.0.lock().unwrap();
        documents.iter().for_each(|document| store.put(document));
        Ok(vec![Written::Stored; documents.len()])
    }
}

/// A lane with a checkpoint on disk.
struct Served {
    folder: tempfile::TempDir,
    lane: Option<Lane<Memory>>,
    store: Arc<Mutex<Store>>,
    config: Config,
    read: u64,
}

impl Served {
    fn new(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut served = Self { folder, lane: None, store: Arc::default(), config, read: 0 };
        served.restart();
        served
    }

    fn restart(&mut self) {
        self.lane = None;
        let checkpoint = Checkpoint::open(&self.folder.path().join("checkpoint.redb")).unwrap();
        let (progress, sessions) = checkpoint.load(Limits::new(&self.config.sessions)).unwrap();
        let folder = Folder::resume(&self.config, Arc::new(GeoIp::default()), sessions);
        self.lane = Some(lane(folder, &self.store, Some(checkpoint), progress));
    }

    /// One cycle over `lines`.
    fn cycle(&mut self, lines: &[String]) {
        let items = lines.iter().map(|line| {
            self.read += 1;
            item(line, self.read)
        });
        let items = items.collect();
        now(self.lane.as_mut().unwrap().cycle(items, WALL)).unwrap();
    }

    /// Lets time pass, as far as another session that begins then tells.
    fn until(&mut self, time: i64) {
        self.cycle(&Story::new("clock").at(time).created().lines());
    }

    fn store(&self) -> Store {
        self.store.lock().unwrap().clone()
    }

    fn of_session(&self, unique_id: &str) -> Vec<Value> {
        let store = self.store();
        let found = store.of("sessionSummary").into_iter().cloned();
        found.filter(|json| json["uniqueSessionId"] == unique_id).collect()
    }
}

fn lane(
    folder: Folder,
    store: &Arc<Mutex<Store>>,
    checkpoint: Option<Checkpoint>,
    progress: Progress,
) -> Lane<Memory> {
    let sink = Memory(Arc::clone(store));
    Lane {
        folder,
        outlet: Arc::new(Outlet {
            sink,
            dead_letters: None,
            metrics: Arc::new(Metrics::new()),
            disk: Disk::default(),
        }),
        checkpoint,
        progress,
        live: watch::Sender::new(Arc::new(Live::default())),
        behind: BTreeSet::new(),
        stats_every: 0,
        takes_any_time: false,
    }
}

fn item(line: &str, offset: u64) -> Item {
    Item::Record(Record {
        position: Position { input: Input("test".into()), offset },
        next_offset: offset + 1,
        source: Arc::from("default"),
        payload: Bytes::from(line.to_owned()),
    })
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// What a replay of `lines` gives, with room for `entities_max` entities in memory.
fn replayed(config: &Config, lines: &[String], entities_max: usize) -> Store {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::default();
    let mut folder = Folder::new(config, Arc::new(GeoIp::default()), Keeping::Replay);
    folder.overflow = Some(Overflow::new(scratch.path(), entities_max));
    let mut lane = lane(folder, &store, None, Progress::default());
    for (offset, lines) in (0_u64..).step_by(10).zip(lines.chunks(10)) {
        let items = (offset..).zip(lines).map(|(offset, line)| item(line, offset)).collect();
        now(lane.cycle(items, WALL)).unwrap();
    }
    loop {
        lane.folder.sessions.finish();
        now(lane.cycle(Vec::new(), WALL)).unwrap();
        if !lane.folder.next_part().unwrap() {
            break;
        }
    }
    drop(lane);
    Arc::try_unwrap(store).unwrap().into_inner().unwrap()
}

fn ended(id: &str, start: i64) -> Story {
    Story::new(id).at(start).of_two()
}

#[test]
fn a_backlog_of_days_in_one_cycle_loses_no_session() {
    let mut served = Served::new(config());
    let lines: Vec<String> =
        (0..10).flat_map(|index| ended("s", START + 2 * index * HOUR).lines()).collect();
    served.cycle(&lines);
    assert_eq!(served.store().of("sessionSummary").len(), 10);
    assert_eq!(served.store().summaries(), replayed(&config(), &lines, 1000).summaries());
}

#[test]
fn what_ended_stays_when_its_time_has_passed() {
    let mut served = Served::new(config());
    let waits = ended("waits", START).recording(70, 5, "stopped", 0, 0.0);
    served.cycle(&waits.lines());
    served.cycle(&ended("soon", START).lines());
    let before = served.store();
    for hour in 1..60 {
        served.until(START + hour * HOUR);
    }
    let kept: Vec<_> = served.store().summaries().keys().map(|id| (*id).clone()).collect();
    assert!(before.summaries().keys().all(|id| kept.contains(id)));
    for id in ["waits", "soon"] {
        let written = served.of_session(&format!("{id}_{START}"));
        assert_eq!((written.len(), written[0].get("closedBy")), (1, None), "{id}");
    }
    assert_eq!(served.lane.as_ref().unwrap().folder.sessions.entities(), 0, "all is forgotten");
}

#[test]
fn a_leap_of_the_clock_over_a_restart_takes_nothing_unwritten() {
    for leap in [2 * HOUR, 25 * HOUR, 40 * DAY] {
        let mut served = Served::new(config());
        served.cycle(&ended("ended", START).lines());
        served.cycle(&Story::new("open").created().joined(1, "con_A").lines());
        served.restart();
        served.until(START + leap);
        served.until(START + leap + SECOND);
        let written = served.of_session(&format!("ended_{START}"));
        assert_eq!((written.len(), written[0].get("closedBy")), (1, None), "{leap}");
        let open = served.of_session(&format!("open_{START}"));
        assert_eq!(open.len(), usize::from(leap > DAY), "{leap}");
        assert!(open.iter().all(|json| json["closedBy"] == "silence"));
    }
}

#[test]
fn a_session_that_fell_silent_does_not_end_the_next_one_of_its_name() {
    let mut served = Served::new(config());
    served.cycle(&Story::old("room").created().joined(1, "con_A").lines());
    served.until(START + 25 * HOUR);
    assert_eq!(served.of_session(&format!("room_{START}"))[0]["closedBy"], "silence");
    let next = START + 26 * HOUR;
    served.cycle(&Story::old("room").at(next).created().joined(1, "con_B").lines());
    served.until(next + HOUR);
    assert!(served.of_session(&format!("room_{next}")).is_empty(), "it is under way");
    let live = served.lane.as_ref().unwrap().folder.sessions.live(next + HOUR);
    let live: Vec<_> = live.sessions.iter().map(|open| open.unique_session_id.as_str()).collect();
    assert_eq!(live, [format!("room_{next}")]);
}

#[test]
fn all_that_was_here_can_be_compared_and_all_that_is_open_is_shown() {
    let mut served = Served::new(config());
    for number in 0..600 {
        let id = format!("s{number}");
        let story = if number % 2 == 0 { Story::old(&id) } else { Story::new(&id) };
        served.cycle(&story.created().joined(1, "con_A").lines());
    }
    served.cycle(&ended("ended", START).lines());
    let sessions = &mut served.lane.as_mut().unwrap().folder.sessions;
    let live = sessions.live(START + HOUR);
    assert_eq!((live.sessions.len(), live.listed().len(), live.totals.sessions), (600, 500, 600));
    // What has ended and has a name of its own is compared for as long as it is kept: its end may be all that came here.
    let names = sessions.names(START + HOUR);
    let hashes: BTreeSet<u64> = names.iter().map(|name| name.hash).collect();
    assert_eq!((names.len(), hashes.len()), (601, 601));
    assert_eq!(names.iter().filter(|name| name.since == Some(START)).count(), 300);
    let ids: BTreeSet<&str> = names.iter().map(|name| &*name.session_id).collect();
    assert!(ids.contains("ended") && ids.contains("s599"));

    // And what came and went since.
    sessions.note_names();
    let later = START + 100 * HOUR;
    served.cycle(&ended("short", later).lines());
    served.cycle(&ended("room", later + 90 * DAY).lines());
    served.until(later + 90 * DAY + HOUR);
    let sessions = &mut served.lane.as_mut().unwrap().folder.sessions;
    for expected in [true, false] {
        let names = sessions.names(later + 90 * DAY + HOUR);
        assert_eq!(names.iter().any(|name| &*name.session_id == "short"), expected);
    }
}

#[test]
fn the_next_session_of_a_name_is_found_where_the_last_was_forgotten() {
    let config = config();
    let lost = Story::old("room").created().joined(1, "con_A");
    let second = START + 2 * HOUR;
    let whole = Story::old("room").at(second).of_two();
    // Its own creation was lost: it belongs to neither of the two.
    let guest = Story::old("room").at(START + 6 * HOUR).joined(0, "con_G");
    let mut served = Served::new(config.clone());
    let mut all = Vec::new();
    for story in [lost, whole] {
        served.cycle(&story.lines());
        all.extend(story.lines());
    }
    served.until(START + 5 * HOUR);
    served.cycle(&guest.lines());
    all.extend(guest.lines());
    served.until(START + 40 * HOUR);
    served.until(START + 41 * HOUR);
    let replayed = replayed(&config, &all, 1000);
    let of = |store: &Store, id: &str| {
        let found = store.of("connectionSummary").into_iter();
        found.filter(|json| json["connectionId"] == id).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of(&served.store(), "con_G"), of(&replayed, "con_G"));
    assert_eq!(of(&replayed, "con_G")[0]["startGuessed"], true);
    let versions = |store: &Store| {
        let found = store.summaries().into_iter();
        found.map(|(id, stored)| (id.clone(), stored.version)).collect::<Vec<_>>()
    };
    // A replay renews what was served: none of its versions is smaller.
    for ((id, served), (same, replayed)) in versions(&served.store())
        .into_iter()
        .filter(|(id, _)| replayed.0.contains_key(id))
        .zip(versions(&replayed))
    {
        assert_eq!(id, same);
        assert!(served <= replayed, "{id}: {served:?} {replayed:?}");
    }
}

/// Serves the stories, each in a cycle of its own and at its time, until all is forgotten or silent.
fn served(stories: &[&Story], until: i64) -> (Store, Store) {
    let mut served = Served::new(config());
    let mut all = Vec::new();
    for story in stories {
        let first = story.events.iter().map(|event| event["timestamp"].as_i64().unwrap()).min();
        served.until(first.unwrap());
        served.cycle(&story.lines());
        all.extend(story.lines());
    }
    for hour in 0..6 {
        served.until(until + hour * HOUR);
    }
    (served.store(), replayed(&config(), &all, 1000))
}

/// What was served is what a replay gives, and a replay can renew it.
fn agree((served, replayed): &(Store, Store)) {
    for (id, stored) in replayed.summaries() {
        let known = served.0.get(id).unwrap_or_else(|| panic!("not served: {}", stored.json));
        assert_eq!(known.json, stored.json);
        assert!(known.version <= stored.version, "{} {:?}", stored.json, known.version);
    }
}

#[test]
fn telemetry_after_the_end_belongs_to_its_connection() {
    let told = Story::old("room").of_two();
    let late = Story::old("room").user(81, "con_A", json!("alice"));
    let both = served(&[&told, &late], START + 3 * HOUR);
    agree(&both);
    assert!(both.0.of("connectionSummary").iter().any(|json| json["user"] == "alice"));
}

#[test]
fn what_a_marker_divided_stays_divided() {
    let lost = Story::old("room").created().joined(1, "con_A");
    let whole = Story::old("room").at(START + 2 * HOUR).of_two();
    let guest = Story::old("room").at(START + 6 * HOUR).joined(0, "con_G");
    let again = Story::old("room").at(START + 9 * DAY).created().joined(1, "con_H");
    let renamed = |story: &Story, to: &str| {
        let events = story
            .events
            .iter()
            .map(|event| serde_json::from_str(&event.to_string().replace("con_", to)).unwrap());
        Story { era: story.era, id: story.id.clone(), start: story.start, events: events.collect() }
    };
    let whole = renamed(&whole, "con_1_");
    let both = served(&[&lost, &whole, &guest, &again], START + 12 * DAY);
    agree(&both);
    let guest =
        both.0.of("connectionSummary").into_iter().find(|json| json["connectionId"] == "con_G");
    assert_eq!(guest.unwrap()["startGuessed"], true);
}

#[test]
fn telemetry_of_a_session_that_is_kept_outlives_another_of_its_name() {
    let open = Story::old("room").created().user(5, "con_X", json!("alice"));
    let whole = Story::old("room").at(START + 2 * HOUR).of_two();
    let left = Story::old("room").left(4, 6 * 3600, "con_X", "disconnect");
    let both = served(&[&open, &whole, &left], START + 40 * HOUR);
    agree(&both);
    let of_x =
        both.0.of("connectionSummary").into_iter().find(|json| json["connectionId"] == "con_X");
    assert_eq!(of_x.unwrap()["user"], "alice");
}

#[test]
fn guests_of_a_session_that_nobody_told_of_are_written_a_day_later() {
    let lost = Story::old("room").created().joined(1, "con_A");
    let whole = Story::old("room").at(START + 2 * HOUR).of_two();
    let guests: Vec<Story> = (1..8)
        .map(|visit| {
            let story = Story::old("room").at(START + visit * 30 * HOUR);
            let id = format!("con_g{visit}");
            story.joined(0, &id).left(0, 60, &id, "disconnect")
        })
        .collect();
    let mut stories = vec![&lost, &whole];
    stories.extend(&guests);
    let mut served_now = Served::new(config());
    for story in &stories {
        served_now.until(story.start);
        served_now.cycle(&story.lines());
    }
    // While guests keep coming, those of earlier days are there.
    let known = served_now.store();
    let known = known.of("connectionSummary");
    assert!(known.iter().any(|json| json["connectionId"] == "con_g1"), "{known:#?}");
    agree(&served(&stories, START + 12 * DAY));
}

#[test]
fn the_master_node_depends_on_no_order() {
    let story = Story::new("s").of_two();
    let copy = |master: &str| {
        let events = story.events.iter().map(|event| {
            let mut event = event.clone();
            event["elastic_type"] = json!("cdr");
            event["master_node_id"] = json!(master);
            event
        });
        Story { era: story.era, id: story.id.clone(), start: story.start, events: events.collect() }
    };
    let (first, second) = (copy("m1"), copy("m2"));
    let one = served(&[&first, &second], START + 2 * HOUR);
    let other = served(&[&second, &first], START + 2 * HOUR);
    assert_eq!(one.0.summaries(), other.0.summaries());
    assert_eq!(one.0.one("sessionSummary")["master_node_id"], "m1");
}

#[test]
fn a_session_that_came_back_is_counted_again() {
    let mut served = Served::new(config());
    served.lane.as_mut().unwrap().stats_every = 60 * SECOND;
    served.cycle(&Story::new("s").created().joined(1, "con_A").lines());
    served.until(START + 25 * HOUR);
    served.cycle(&Story::new("s").joined(26 * 3600, "con_B").lines());
    served.until(START + 26 * HOUR + 900 * SECOND);
    let store = served.store();
    let last = store.of("platformStats").into_iter().max_by_key(|json| json["timestamp"].as_i64());
    let last = last.unwrap();
    assert!(last["timestamp"].as_i64().unwrap() > START + 26 * HOUR, "{last}");
    assert_eq!(last["num_connections"], 2);
}

#[test]
fn connections_that_only_telemetry_knows_cost_no_scan_each() {
    let mut config = config();
    config.sessions.entities_max = 50.try_into().unwrap();
    let mut bench = Bench::with(config);
    let story = (0..3_000).fold(Story::new("s").created(), |story, at| {
        story.user(at, &format!("con_{at}"), json!("u"))
    });
    for line in story.lines() {
        bench.read(&line);
    }
    assert_eq!(bench.folder.sessions.entities(), 50);
}

#[test]
fn bounds_and_cut_texts_concern_one_session_of_a_name() {
    let mut config = config();
    config.sessions.entities_max = 5.try_into().unwrap();
    let mut lines = Vec::new();
    for day in 0..4 {
        let story = Story::old("room").at(START + day * DAY).created();
        let story = ["a", "b", "c"]
            .iter()
            .fold(story, |story, id| story.joined(1, &format!("con_{id}{day}")));
        lines.extend(story.destroyed(100, "lastParticipantLeft").lines());
    }
    let long = Story::old("other").tell(
        "participantJoined",
        1,
        json!({"connectionId": "con_L", "clientData": "x".repeat(5000)}),
    );
    lines.extend(long.created().destroyed(100, "lastParticipantLeft").lines());
    lines.extend(Story::old("other").at(START + DAY).created().joined(1, "con_S").lines());
    let store = replayed(&config, &lines, 1000);
    let sessions = store.of("sessionSummary");
    for day in 0..4 {
        let id = format!("room_{}", START + day * DAY);
        let session = sessions.iter().find(|json| json["uniqueSessionId"] == id).unwrap();
        assert_eq!(session["users"]["numberOfElements"], 3, "{id}");
        assert!(session.get("truncated").is_none(), "{id}");
    }
    let truncated: Vec<_> = sessions.iter().filter(|json| json["truncated"] == true).collect();
    assert_eq!(truncated.len(), 1);
    assert_eq!(truncated[0]["uniqueSessionId"], format!("other_{START}"));
}

#[test]
fn a_session_far_above_its_bound_costs_no_more_for_it() {
    let mut config = config();
    config.sessions.entities_max = 100.try_into().unwrap();
    let story = (0..5_000).fold(Story::new("s").created(), |story, index| {
        story.joined(1 + index / 10, &format!("con_{index:05}"))
    });
    let story = story.destroyed(9_000, "lastParticipantLeft");
    let store = replayed(&config, &story.lines(), 1000);
    let session = store.one("sessionSummary");
    assert_eq!(
        (&session["users"]["numberOfElements"], &session["truncated"]),
        (&json!(100), &json!(true))
    );
    let version = store.summaries().values().map(|stored| stored.version).max();
    assert_eq!(version, Some(Some((1 << 40) + 5_003)), "what was cut stays counted");
}

#[test]
fn a_user_who_was_cut_is_still_the_user_of_others() {
    let mut config = config();
    config.sessions.entities_max = 2.try_into().unwrap();
    let mut bench = Bench::with(config);
    let story = Story::new("s")
        .created()
        .joined(1, "con_A")
        .joined(2, "con_B")
        .joined(3, "con_C")
        .user(4, "con_C", json!("alice"))
        .user(5, "con_A", json!("alice"))
        .destroyed(9, "lastParticipantLeft");
    for line in story.lines() {
        bench.read(&line);
    }
    let store = bench.finish();
    let first =
        store.of("connectionSummary").into_iter().find(|json| json["connectionId"] == "con_A");
    assert_eq!(first.unwrap()["user"], "alice");
}

#[test]
fn what_was_open_is_counted_at_every_tick_once() {
    let mut served = Served::new(config());
    served.lane.as_mut().unwrap().stats_every = 60 * SECOND;
    served.cycle(&Story::new("clock").at(START - HOUR).created().lines());
    let story = Story::new("s")
        .of_two()
        .recording(65, 30, "started", 0, 0.0)
        .tell("broadcastStarted", 30, json!({}))
        .tell(
            "broadcastStopped",
            70,
            json!({"startTime": START + 30 * SECOND, "reason": "unpublish"}),
        );
    served.cycle(&story.lines());
    served.until(START + 200 * SECOND);
    let before = served.store().of("platformStats").len();
    served.cycle(&[]);
    let store = served.store();
    let ticks = store.of("platformStats");
    assert_eq!(ticks.len(), before);
    let at = |second: i64| {
        let found = ticks.iter().find(|json| json["timestamp"] == START + second * SECOND);
        let json = found.unwrap_or_else(|| panic!("{second}: {ticks:#?}"));
        let names =
            ["sessions", "connections", "publishers", "subscribers", "recordings", "broadcasts"];
        names.map(|name| json[format!("num_{name}")].as_i64().unwrap())
    };
    // Ticks are whole minutes of the clock; the story begins 20 seconds after one.
    assert_eq!(at(40), [1, 2, 2, 2, 1, 1]);
    assert_eq!(at(100), [0; 6], "that it is over is told once");
    assert!(ticks.iter().all(|json| json["timestamp"].as_i64().unwrap() <= START + 100 * SECOND));
}

/// Sessions of both ages whose names come back, in the order of time, with telemetry, and events that are lost or repeated.
fn month(seed: u64) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let mut events: Vec<(i64, String)> = Vec::new();
    for _ in 0..12 {
        let start = START + rng.span(20 * DAY);
        let name = format!("room{}", rng.below(3));
        let story = if rng.below(2) == 0 { Story::old(&name) } else { Story::new(&name) };
        let story = story.at(start).of_two();
        let story = match rng.below(4) {
            0 => story.recording(70, 5, "stopped", 0, 0.0).recording(3000, 5, "ready", 9, 1.5),
            1 => story.user(rng.span(200), "con_A", json!("alice")),
            2 => story.user(rng.span(200), "con_B", json!("bob")).user(90, "con_B", json!("al")),
            _ => story,
        };
        let is_headless = rng.below(4) == 0;
        for event in story.events {
            let at = event["timestamp"].as_i64().unwrap();
            let is_head = event["event"].as_str().is_some_and(|name| name.starts_with("session"));
            // Connection ids are never used again.
            let event = event.to_string().replace("con_", &format!("con_{start}_"));
            if rng.below(12) > 0 && !(is_head && is_headless) {
                for _ in 0..=rng.below(8) / 7 {
                    events.push((at, event.clone()));
                }
            }
        }
    }
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(_, event)| event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn serving_gives_what_a_replay_gives(seed: u64) {
        let lines = month(seed);
        let config = config();
        let replayed_all = replayed(&config, &lines, 1_000_000);
        prop_assert_eq!(&replayed_all, &replayed(&config, &lines, 3), "with sessions in a temporary file");
        let mut served = Served::new(config);
        let rng = &mut Rng::new(seed ^ 3);
        let mut at = 0;
        while at < lines.len() {
            let end = (at + 1 + usize::try_from(rng.below(60)).unwrap()).min(lines.len());
            served.cycle(&lines[at..end]);
            if rng.below(4) == 0 {
                served.restart();
            }
            at = end;
        }
        // All that was left open falls silent.
        served.until(START + 60 * DAY);
        served.until(START + 60 * DAY + SECOND);
        let served = served.store();
        for (id, stored) in replayed_all.summaries() {
            let known = served.0.get(id);
            prop_assert!(known.is_some(), "{}", stored.json);
            let known = known.unwrap();
            prop_assert_eq!(&known.json, &stored.json);
            prop_assert!(known.version <= stored.version, "{} {:?} {:?}", stored.json, known.version, stored.version);
        }
    }
}

#[test]
fn sessions_that_do_not_fit_into_memory_come_back_whole() {
    let lines = month(7);
    let mut sessions = Sessions::new(Limits::new(&config().sessions), Keeping::Replay);
    let scratch = tempfile::tempdir().unwrap();
    let mut overflow = Overflow::new(scratch.path(), 1);
    assert!(overflow.is_empty());
    let mut folder = Folder::new(&config(), Arc::new(GeoIp::default()), Keeping::Replay);
    let times = callscope::lane::fold::Times { lane: 0, wall: WALL };
    for line in &lines {
        folder.fold(line.as_bytes(), "default", times, &mut Default::default(), |_| {}).unwrap();
    }
    std::mem::swap(&mut sessions, &mut folder.sessions);
    let mut documents = Vec::new();
    while sessions.documents_of_one(&mut documents) {}
    let before = sessions.entities();
    overflow.relieve(&mut sessions).unwrap();
    assert!(sessions.entities() == 0 && !overflow.is_empty());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "the file has no name");
    let mut back = 0;
    while !overflow.is_empty() {
        let mut part = Sessions::new(Limits::new(&config().sessions), Keeping::Replay);
        overflow.drain(&mut part).unwrap();
        back += part.entities();
    }
    assert_eq!(back, before);
}

#[test]
fn what_is_forgotten_stays_counted() {
    let config = config();
    let mut served = Served::new(config.clone());
    let mut all = Vec::new();
    for day in 0..3 {
        let start = START + day * DAY;
        let story = Story::old("room").at(start).of_two();
        let lines: Vec<String> = story
            .lines()
            .into_iter()
            .map(|line| line.replace("con_", &format!("con_{day}_")))
            .collect();
        served.cycle(&lines);
        all.extend(lines);
        served.until(start + 5 * HOUR);
        served.restart();
    }
    let (served, replayed) = (served.store(), replayed(&config, &all, 1000));
    let last = format!("room_{}", START + 2 * DAY);
    let of_last = |store: &Store| {
        let summaries = store.summaries().into_iter();
        let of = summaries.filter(|(_, stored)| stored.json["uniqueSessionId"] == last);
        of.map(|(id, stored)| (id.clone(), stored.version)).collect::<Vec<_>>()
    };
    assert_eq!(of_last(&served).len(), 9);
    // All documents of a name share one version: that of the last one counts what the first ones were.
    assert_eq!(of_last(&served), of_last(&replayed));
}

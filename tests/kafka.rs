//! Real processes in a group on a real Kafka, in front of a store that keeps what it is sent: whatever happens to them, the
//! documents are those of one undisturbed import.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use callscope::simulate::rng::Rng;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

#[path = "support/elastic_double.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod elastic_double;
#[path = "support/group.rs"]
mod group;
#[path = "support/instance.rs"]
mod instance;
#[path = "support/kafka_server.rs"]
#[expect(dead_code, reason = "the bench needs more of it")]
mod kafka_server;
#[path = "support/openvidu.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod openvidu;

use group::{Group, assert_same, but_for_silent, imported, imported_to_the_end, load, run};
use instance::{Instance, until};
use kafka_server::{Kafka, Stored, Wire};
use openvidu::{OpenVidu, SECRET, Version, session};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_and_topics_become_the_documents_of_one_import() {
    let group = Group::start("one", 6).await;
    let events = load(1, 2000);
    let (by_webhook, others) = events.split_at(events.len() / 3);
    let (by_file, by_topic) = others.split_at(events.len() / 3);
    let first = group.serve("a");
    first.post(by_webhook).await;
    first.wait_for("/metrics", "callscope_queue_depth 0\n").await;
    let second = group.serve("b");
    let told = group.import("c", by_file);
    assert!(told.contains(&format!("{} sent, 0 skipped, 0 refused", by_file.len())), "{told}");
    group.produce(by_topic);
    group.is_settled(&first).await;
    let expected = imported(&events);
    assert_same(&group.documents(), &expected);
    first.stop();
    second.stop();

    // Everything is accounted for, and what somebody deletes is missed.
    let told = group.is_accounted_for();
    assert!(told.contains(&format!("records: {} = ", events.len())), "{told}");
    let told = group.audit(&[("CALLSCOPE__SINK__KIND", "stdout")], 0);
    assert!(told.contains("raw documents: not counted"), "{told}");
    let raw = group.documents().into_iter().filter(|(_, (version, _))| version.is_none());
    let raw: Vec<String> = raw.map(|(id, _)| id).collect();
    let (index, version, json) = group.double.documents().remove(&raw[0]).unwrap();
    group.double.delete(&raw[0]);
    let told = group.audit(&[], 6);
    let gap = format!(
        "gap: openvidu holds {} raw documents, at least {} were stored there: 1 are gone",
        raw.len() - 1,
        raw.len()
    );
    assert!(told.contains(&gap), "{told}");
    group.double.put(&raw[0], (index, version, json));
    group.is_accounted_for();

    // The topic folded into another index gives the same, and one session of it alone its documents.
    let session = events[0].split("\"sessionId\":\"").nth(1).unwrap().split('"').next().unwrap();
    for chosen in [None, Some(session)] {
        let again = group.with_other_store().await;
        let mut command = again.command("");
        command.args(["replay", "--into", "again"]);
        run(command.args(chosen.iter().flat_map(|session| ["--session", session])), 0);
        let mut wanted = expected.clone();
        wanted.retain(|_, (_, json)| chosen.is_none_or(|session| json["sessionId"] == session));
        assert!(!wanted.is_empty());
        assert_same(&but_for_silent(again.documents()), &wanted);
        let indices = again.double.documents().into_values().map(|(index, _, _)| index);
        assert!(indices.into_iter().all(|index| index.starts_with("again-events-")));
    }
    assert_eq!(group.kafka.lag("g", "events"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_open_on_one_machine_are_made_whole_in_the_group_as_it_says() {
    let group = Group::start("switch", 4).await;
    let events = load(15, 2000);
    let (before, after) = events.split_at(1000);
    let settings =
        [("CALLSCOPE__KAFKA__BROKERS", ""), ("CALLSCOPE__JOURNAL__SEGMENT_BYTES", "100000")];
    let alone = group.serve_with("a", &settings);
    alone.post(before).await;
    until(async || {
        group.documents().values().filter(|(version, _)| version.is_none()).count() >= 1000
    })
    .await;
    alone.stop();

    let instance = group.serve("a");
    let told = instance.told();
    assert!(told.contains("before Kafka was set") && told.contains("import --to kafka"), "{told}");
    instance.post(after).await;
    group.import("b", before);
    instance.wait_for("/metrics", "callscope_queue_depth 0\n").await;
    group.has_folded(&events, &instance).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_a_part_ends_nothing_that_is_open_and_counts_nothing() {
    let group = Group::start("parts", 4).await;
    let now = chrono::Utc::now().timestamp_millis();
    // Ten minutes before a full hour, at which is counted.
    let hours = |count: i64| now - now % 3_600_000 - 600_000 - (count - 1) * 3_600_000;
    // The first has fallen silent, the second goes on, the third is over.
    let sessions = [(1, hours(72), 2), (2, hours(1), 2), (3, hours(2), 4)];
    let events: Vec<String> = sessions
        .iter()
        .flat_map(|(number, start, count)| open_session(*number, *start).into_iter().take(*count))
        .map(|event| event.to_string())
        .collect();
    group.produce(&events);
    let replayed = async |into: &str, arguments: &[&str]| {
        let again = group.with_other_store().await;
        let mut command = again.command("");
        command.env("CALLSCOPE__STATS__EVERY", "1h").args(["replay", "--into", into]);
        run(command.args(arguments), 0);
        again.documents()
    };
    let everything = imported_to_the_end(&events, "1h");
    let is_counted = |json: &Value| json["elastic_type"] == "platformStats";
    assert!(everything.values().any(|(_, json)| is_counted(json)));
    assert_same(&replayed("again", &[]).await, &everything);

    for (into, arguments, whose) in [
        ("openvidu", &[][..], &["s1", "s3"][..]),
        ("again", &["--from", "2000-01-01T00:00:00Z"], &["s1", "s3"]),
        ("again", &["--to", "2100-01-01T00:00:00Z"], &["s1", "s3"]),
        ("again", &["--session", "s1"], &["s1"]),
        ("again", &["--session", "s2"], &[]),
        ("openvidu", &["--session", "s3"], &["s3"]),
    ] {
        let found = replayed(into, arguments).await;
        let mut expected = everything.clone();
        expected.retain(|_, (version, json)| {
            let session = json["sessionId"].as_str().unwrap_or_default();
            let is_chosen = !arguments.contains(&"--session") || arguments.contains(&session);
            !is_counted(json) && is_chosen && (version.is_none() || whose.contains(&session))
        });
        assert!(!expected.is_empty());
        assert_same(&found, &expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_beside_a_group_at_work_finds_the_gaps_that_are_there() {
    let group = Group::start("audit", 4).await;
    let instance = group.serve("a");
    instance.holds().await;
    let (is_over, elsewhere) = (Arc::new(AtomicBool::new(false)), group.kafka.address());
    let stops = Arc::clone(&is_over);
    let feeding = std::thread::spawn(move || {
        let events = load(17, 20_000);
        for part in events.chunks(50) {
            if stops.load(Ordering::Relaxed) {
                break;
            }
            elsewhere.produce("events", part);
        }
    });
    group.has_begun().await;
    let mut seen = BTreeSet::new();
    while seen.len() < 5 {
        let told = group.is_accounted_for();
        seen.insert(told.lines().find(|line| line.starts_with("records: ")).unwrap().to_owned());
        assert!(!feeding.is_finished(), "{seen:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    group.is_settled(&instance).await;
    instance.stop();

    // States of earlier than what is committed.
    group.is_accounted_for();
    let mut state = group.kafka.last("g-state");
    state.retain(|(_, key, _)| key == b"p");
    let records = load(18, 500);
    group.produce(&records);
    group.deals_with_all().await;
    for (partition, key, value) in &state {
        group.kafka.put("g-state", *partition, key, value);
    }
    let told = group.audit(&[], 6);
    let gaps = told.lines().filter(|line| line.contains(": the group has committed ")).count();
    assert!((1..=4).contains(&gaps), "{told}");

    // Records that are counted and were never there.
    let mut state = group.kafka.last("g-state");
    state.retain(|(_, key, _)| key == b"p");
    let other = group.beside("h", "others");
    other.kafka.topic("others", 4).await;
    other.produce(&records);
    other.deals_with_all().await;
    let (partition, key, _) =
        other.kafka.last("h-state").into_iter().find(|(_, key, _)| key == b"p").unwrap();
    let (_, _, value) = state.iter().find(|(known, ..)| *known == partition).unwrap();
    other.kafka.put("h-state", partition, &key, value);
    let told = other.audit(&[], 6);
    let gap = format!("gap: partition {partition}: 0 offsets were passed, ");
    assert!(told.contains(&gap), "{told}");
}

/// When the next thing happens to an instance, however far the group is with a cycle, a rebalance or a restore by then.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AtOnce,
    /// When somebody has got partitions.
    Assigned,
    /// After so many more requests to the store.
    Stored(usize),
}

/// Something that happens to an instance.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    Stop,
    Start,
    /// From the brokers: it comes back at once, when it notices, or when the others have got what it had.
    Cut,
}

/// Waits for a moment, or until there is nothing left that it could come of.
async fn comes(moment: Moment, group: &Group, instances: &[Option<Instance>]) {
    let alive = || instances.iter().flatten();
    if alive().next().is_none() {
        return;
    }
    let assigned = || -> usize {
        alive().map(|instance| instance.told().matches("partitions assigned").count()).sum()
    };
    let (before, stored) = (assigned(), group.double.arrived());
    until(async || match moment {
        Moment::AtOnce => true,
        Moment::Assigned => assigned() > before || group.is_done(),
        Moment::Stored(more) => group.double.arrived() >= stored + more || group.is_done(),
    })
    .await;
}

/// Three instances and twelve partitions: again and again one is killed, stopped, started or cut off, while events come.
async fn chaos(kafka: &Kafka, wires: &[Wire; 3], seed: u64, events: usize) {
    let topic = format!("chaos-{seed}").leak();
    let group = Group::on(kafka.address(), topic, topic).await;
    group.kafka.topic(topic, 12).await;
    let events = load(seed, events);
    let mut rng = Rng::new(seed);
    let names = ["a", "b", "c"];
    let start = |place: usize| {
        let through = [("CALLSCOPE__KAFKA__BROKERS", &*wires[place].brokers)];
        group.serve_with(names[place], &through)
    };
    let mut instances: Vec<Option<Instance>> = (0..3).map(|place| Some(start(place))).collect();
    let parts: Vec<&[String]> = events.chunks(events.len().div_ceil(10)).collect();
    for part in parts {
        group.produce(part);
        for _ in 0..2 {
            let place = usize::try_from(rng.below(3)).unwrap();
            let blow = match (&instances[place], rng.below(4)) {
                (None, _) => Blow::Start,
                (Some(_), 0) => Blow::Stop,
                (Some(_), 1) => Blow::Cut,
                (Some(_), _) => Blow::Kill,
            };
            match (blow, instances[place].take()) {
                (Blow::Kill, Some(instance)) => instance.kill(),
                (Blow::Stop, Some(instance)) => instance.stop(),
                (Blow::Cut, Some(instance)) => {
                    wires[place].cut(true);
                    match rng.below(3) {
                        0 => {}
                        1 => instance.wait_for("/readyz", "\"ready\":false").await,
                        _ => {
                            let is_member =
                                || group.kafka.members(topic).contains(&names[place].to_owned());
                            until(async || !is_member()).await;
                        }
                    }
                    wires[place].cut(false);
                    instances[place] = Some(instance);
                }
                _ => instances[place] = Some(start(place)),
            }
            let moment = match rng.below(3) {
                0 => Moment::AtOnce,
                1 => Moment::Assigned,
                _ => Moment::Stored(usize::try_from(rng.below(30)).unwrap()),
            };
            comes(moment, &group, &instances).await;
        }
    }
    for (place, instance) in instances.iter_mut().enumerate() {
        instance.get_or_insert_with(|| start(place));
    }
    group.has_folded(&events, instances[0].as_ref().unwrap()).await;
    group.is_accounted_for();
    instances.into_iter().flatten().for_each(Instance::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_documents_are_those_of_one_import_whatever_happens_to_instances() {
    #[expect(clippy::disallowed_methods, reason = "how much of it is no setting of callscope")]
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seeds, first) = (number("SEEDS", 2), number("SEED", 1));
    let events = usize::try_from(number("EVENTS", 20_000)).unwrap();
    let kafka = Kafka::start("chaos", 1);
    let wires = [kafka.wire(0).await, kafka.wire(1).await, kafka.wire(2).await];
    for seed in first..first + seeds {
        chaos(&kafka, &wires, seed, events).await;
    }
}

/// The points stand only in debug builds.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_at_each_point_of_a_cycle_changes_nothing() {
    let kafka = Kafka::start("points", 1);
    let events = load(3, 1500);
    let expected = imported(&events);
    for (point, count) in [
        ("bulk", 3),
        ("bulk-answered", 2),
        ("in-transaction", 2),
        ("before-commit", 2),
        ("committed", 2),
        ("restore", 2),
        ("revoke", 1),
    ] {
        let topic = format!("at-{point}").leak();
        let group = Group::on(kafka.address(), topic, topic).await;
        group.kafka.topic(topic, 4).await;
        let (before, after) = events.split_at(events.len() / 2);
        group.produce(before);
        if point == "restore" {
            group.deals_with_all().await;
        }
        let dying = [("CALLSCOPE_KILL_POINT", &*format!("{point}:{count}"))];
        let mut dying = group.serve_with("a", &dying);
        let mut other = None;
        if point == "revoke" {
            dying.holds().await;
            other = Some(group.serve("b"));
        }
        let feeding = std::thread::scope(|scope| {
            // Cycles come as long as events do.
            scope.spawn(|| {
                for part in after.chunks(100) {
                    group.produce(part);
                }
            });
            dying.process.wait().unwrap()
        });
        let signal = std::os::unix::process::ExitStatusExt::signal(&feeding);
        assert_eq!(signal, Some(6), "{point}: {feeding}\n{}", dying.told());
        let again = group.serve("a");
        group.is_settled(&again).await;
        assert_same(&group.documents(), &expected);
        group.is_accounted_for();
        again.stop();
        other.into_iter().for_each(Instance::stop);
    }
}

/// The brokers mark the end of a transaction partition by partition. Whoever takes over between two such marks finds offsets
/// that are committed, and a state that is not there yet.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_between_two_marks_of_a_commit_waits_for_the_second() {
    let mut group = Group::on(Kafka::start_with("marks", 3, 1), "g", "events").await;
    group.kafka.coordinate();
    let offsets = group.kafka.coordinator("__consumer_offsets", "g");
    let names =
        [("a", "g/a"), ("b", "g/b"), ("c", "g/c"), ("d", "g/d"), ("e", "g/e"), ("f", "g/f")];
    let led =
        names.map(|(name, full)| (name, group.kafka.coordinator("__transaction_state", full)));
    // One broker keeps the offsets, one the state, and one the transactions of an instance that dies.
    let (dies, transactions) = *led.iter().find(|(_, node)| *node != offsets).unwrap();
    let (takes_over, _) = *led.iter().find(|(_, node)| *node != transactions).unwrap();
    let keeps = (0..3).find(|node| ![offsets, transactions].contains(node)).unwrap();
    for (topic, node, partitions) in [
        ("events", offsets, 4),
        ("g-state", keeps, 4),
        ("g-dead-letters", offsets, 1),
        ("g-digests", offsets, 1),
    ] {
        group.kafka.topic_on(topic, node, partitions).await;
    }
    let events = load(14, 1500);
    group.produce(&events);
    let dying = group.serve_with(dies, &[("CALLSCOPE_STOP_POINT", "before-commit:1")]);
    dying.is_stopped();
    let partition = group.kafka.open("g-state")[0];
    assert_eq!(group.kafka.committed(offsets, "g", ("events", partition)), None);
    group.kafka.kill(keeps);
    dying.signal("-CONT");
    until(async || group.kafka.committed(offsets, "g", ("events", partition)).is_some()).await;
    dying.kill();
    group.kafka.signal(transactions, "-STOP");
    group.kafka.run(keeps);
    group.kafka.is_ready(2);
    let next = group.serve(takes_over);
    next.wait_for("/readyz", "\"restoring\":[0").await;
    // Whoever did not wait would not be there any more to say how far it is.
    next.tells("reading the state of the partitions").await;
    next.shows("/readyz", "\"restoring\":[0").await;
    assert!(group.kafka.open("g-state").contains(&partition));
    // Nothing is held yet, so nothing has to be given back first.
    next.signal("-TERM");
    let told = next.ended_with(0);
    assert!(!told.contains("given back before"), "{told}");
    let next = group.serve(takes_over);
    next.wait_for("/readyz", "\"restoring\":[0").await;
    group.kafka.signal(transactions, "-CONT");
    group.has_folded(&events, &next).await;
    next.stop();
}

/// The brokers undo what takes too long; it is made again.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_took_too_long_is_made_again() {
    let group = Group::start("long", 4).await;
    let events = load(15, 2000);
    group.produce(&events);
    let settings = [
        ("CALLSCOPE_STOP_POINT", "before-commit:1"),
        ("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "10m"),
        ("CALLSCOPE__KAFKA__TRANSACTION_TIMEOUT", "2s"),
    ];
    let instance = group.serve_with("a", &settings);
    instance.is_stopped();
    assert!(!group.kafka.open("g-state").is_empty());
    until(async || group.kafka.open("g-state").is_empty()).await;
    instance.signal("-CONT");
    group.has_folded(&events, &instance).await;
    instance.wait_for("/metrics", "transactions_total{outcome=\"not_saved\"} 1").await;
    instance.stop();
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_comes_back_costs_nothing() {
    let mut group = Group::start("broker", 4).await;
    let events = load(5, 6000);
    let (sent, elsewhere) = (events.clone(), group.kafka.address());
    let producing = std::thread::spawn(move || {
        for part in sent.chunks(300) {
            elsewhere.produce("events", part);
        }
    });
    let instance = group.serve("a");
    instance.holds().await;
    for _ in 0..2 {
        let seen = group.double.documents().len();
        until(async || group.double.documents().len() >= (seen + 200).min(events.len() / 2)).await;
        group.kafka.kill(0);
        group.kafka.run(0);
        group.kafka.is_ready(1);
    }
    producing.join().unwrap();
    group.has_folded(&events, &instance).await;
    // Whoever is told to stop in the middle of a transaction does not wait for brokers that are away.
    instance.stop();
    let other = group.beside("h", "events");
    let instance = other.serve_with("a", &[("CALLSCOPE_STOP_POINT", "in-transaction:1")]);
    instance.is_stopped();
    group.kafka.kill(0);
    instance.signal("-CONT");
    instance.wait_for("/readyz", "no broker answers").await;
    instance.stop();
    group.kafka.run(0);
    group.kafka.is_ready(1);
    let instance = other.serve("a");
    other.has_folded(&events, &instance).await;
    // Nobody says any more that they are away, though nothing comes.
    group.kafka.kill(0);
    instance.wait_for("/readyz", "no broker answers").await;
    group.kafka.run(0);
    instance.wait_for("/readyz", "\"ready\":true").await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stalled_saves_nothing_when_it_wakes() {
    let group = Group::start("stalled", 4).await;
    let events = load(6, 4000);
    let (first, rest) = events.split_at(1000);
    let stalled = group.serve("a");
    stalled.holds().await;
    group.produce(first);
    group.has_begun().await;
    stalled.signal("-STOP");
    let other = group.serve("b");
    let (second, last) = rest.split_at(2000);
    group.produce(second);
    // The group waits for the one that says nothing until its session is over.
    group.is_settled(&other).await;
    stalled.signal("-CONT");
    group.produce(last);
    group.has_folded(&events, &other).await;
    group.is_accounted_for();
    stalled.stop();
    other.stop();
}

/// Of the events that wait while a store is away, not all fit.
const LITTLE_ROOM: [(&str, &str); 1] = [("CALLSCOPE__KAFKA__QUEUE_BYTES", "1000000")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_paused_is_read_on_by_whoever_gets_it_again() {
    let group = Group::start("paused", 4).await;
    let events = load(18, 20_000);
    group.store_is_away();
    let instance = group.serve_with("a", &LITTLE_ROOM);
    instance.holds().await;
    group.produce(&events);
    instance.wait_for("/readyz", "the sink is away").await;
    // Of a paused partition the end is asked for.
    instance.wait_for("/metrics", "callscope_kafka_lag{").await;
    let other = group.serve_with("b", &LITTLE_ROOM);
    other.holds().await;
    other.stop();
    instance.wait_for("/readyz", "\"held\":[0,1,2,3]").await;
    group.store_is_back();
    group.has_folded(&events, &instance).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_costs_no_membership_and_no_memory() {
    let group = Group::start("away", 4).await;
    let events = load(7, 20_000);
    group.store_is_away();
    let instance = group.serve_with("a", &LITTLE_ROOM);
    instance.holds().await;
    group.produce(&events);
    for _ in 0..3 {
        group.kafka.a_session_passes();
    }
    instance.shows("/readyz", "\"held\":[0,1,2,3]").await;
    instance.shows("/readyz", "the sink is away").await;
    // What waits is seen all the same.
    let lag = async || {
        let page = instance.get("/metrics").await;
        let lines = page.lines().filter(|line| line.starts_with("callscope_kafka_lag{"));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum::<usize>()
    };
    until(async || lag().await == events.len()).await;
    let memory =
        std::fs::read_to_string(format!("/proc/{}/status", instance.process.id())).unwrap();
    let resident = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    let resident: u64 = resident.strip_suffix("kB").unwrap().trim().parse().unwrap();
    assert!(resident < 200_000, "{resident} kB");
    group.store_is_back();
    group.has_folded(&events, &instance).await;
    assert!(!instance.has_told("partitions taken away"));
    instance.stop();
}

/// A call of two that goes on: it was joined, and is left half an hour later.
fn open_session(number: i64, start: i64) -> [Value; 4] {
    let (id, connection) = (format!("s{number}"), format!("con_{number}"));
    let unique = format!("{id}_{start}");
    let event = |name: &str, after: i64| {
        json!({"event":name,"sessionId":id,"uniqueSessionId":unique,"timestamp":start + after,"connectionId":connection,
               "location":"unknown","ip":"10.0.0.1","platform":"x","startTime":start + 1,"duration":1800,"reason":"disconnect"})
    };
    [
        json!({"event":"sessionCreated","sessionId":id,"uniqueSessionId":unique,"timestamp":start}),
        event("participantJoined", 1),
        event("participantLeft", 1_800_001),
        json!({"event":"sessionDestroyed","sessionId":id,"uniqueSessionId":unique,"timestamp":start + 1_800_002,
               "startTime":start,"duration":1800,"reason":"lastParticipantLeft"}),
    ]
}

/// Time in which a store was away is no time in which a session was silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_a_day_closes_no_session() {
    let group = Group::start("day", 4).await;
    let [clock, ahead] = ["clock.so", "ahead"].map(|name| group.folder.path().join(name));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&clock).arg(source).status();
    assert!(made.unwrap().success());
    std::fs::write(&ahead, "0").unwrap();
    let clocks =
        [("LD_PRELOAD", clock.to_str().unwrap()), ("CLOCK_AHEAD", ahead.to_str().unwrap())];
    let instance = group.serve_with("a", &clocks);
    instance.holds().await;
    let now = chrono::Utc::now();
    let start = now.timestamp_millis() - 3_600_000;
    let sessions: Vec<_> = (0..40).map(|number| open_session(number, start + number)).collect();
    let part = |from: usize, to: usize| -> Vec<String> {
        let events = sessions.iter().flat_map(|events| events[from..to].iter());
        events.map(Value::to_string).collect()
    };
    group.produce(&part(0, 1));
    group.is_settled(&instance).await;
    let index = format!("openvidu-events-{}", now.format("%Y.%m"));
    group.takes_nothing_of(&[&index]);
    // One alone: what waits behind it would be a reason of its own to count no time.
    group.produce(&part(1, 2)[..1]);
    instance.wait_for("/readyz", "the sink is away").await;
    std::fs::write(&ahead, "90000").unwrap();
    instance.shows("/readyz", "\"held\":[0,1,2,3]").await;
    group.store_is_back();
    group.is_settled(&instance).await;
    let tomorrow = (now + Duration::from_secs(90_000)).format("%Y-%m-%dT").to_string();
    instance.tells(&tomorrow).await;
    // A lane is told of every two seconds at most, and its sessions are looked through every second: those that had fallen silent
    // would be written.
    let told =
        || group.kafka.records("g-digests").iter().filter(|digest| digest.key == b"0").count();
    let before = told();
    until(async || told() >= before + 2).await;
    let expected = imported(&[part(0, 1), part(1, 2)[..1].to_vec()].concat());
    assert_eq!(expected.len(), 41);
    assert_same(&group.documents(), &expected);
    group.produce(&part(1, 4));
    group.has_folded(&part(0, 4), &instance).await;
    assert!(!instance.has_told("partitions taken away"));
    instance.stop();
}

/// Bytes that cannot be compressed.
fn noise(count: usize) -> Vec<u8> {
    let mut rng = Rng::new(8);
    std::iter::repeat_with(|| rng.number().to_le_bytes()).flatten().take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_becomes_a_letter_and_its_neighbours_live() {
    let group = Group::start("poison", 2).await;
    let events = load(8, 500);
    let (before, after) = events.split_at(250);
    group.produce(before);
    // It takes no more than topics do by default.
    let made = "kafka-topics.sh --create --topic g-dead-letters --partitions 1 --config cleanup.policy=compact";
    group.kafka.make(made).await;
    let producer = group.kafka.producer(&[("message.max.bytes", "2000000")]);
    // As large as the topic takes; with what a letter says of it, it would be too large.
    let large = noise(1_048_400);
    for payload in [Some(&b"garbage"[..]), None, Some(b"{\"event\":\"x\"}"), Some(&large)] {
        let mut record = BaseRecord::<str, [u8]>::to("events").key("key");
        record.payload = payload;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    group.produce(after);
    let instance = group.serve("a");
    group.has_folded(&events, &instance).await;
    let mut letters = group.kafka.records("g-dead-letters");
    // Whether the topic may be written was tried with a tombstone.
    letters.retain(|letter| letter.key != b"?");
    let mut reasons: Vec<&str> = letters.iter().map(|letter| letter.header("reason")).collect();
    reasons.sort_unstable();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(reasons.contains(&"a record without a value"), "{reasons:?}");
    for letter in &letters {
        assert_eq!(letter.header("topic"), "events");
        let (partition, offset) = (letter.header("partition"), letter.header("offset"));
        let key = format!("record/kafka/events/{partition}@{offset}");
        assert_eq!(letter.key, key.as_bytes());
    }
    let value = |letter: &Stored| letter.value.clone().unwrap_or_default();
    assert!(letters.iter().any(|letter| value(letter) == b"garbage"));
    let cut = letters.iter().find(|letter| value(letter) == large[..900_000]).unwrap();
    assert_eq!(cut.header("size"), "1048400");
    let key = |letter: &Stored| String::from_utf8(letter.key.clone()).unwrap();

    // The command works on the topic, beside a group that runs.
    let told_by = |arguments: &[&str], code: i32| group.dead_letters(arguments, code).0;
    let garbage = key(letters.iter().find(|letter| value(letter) == b"garbage").unwrap());
    let empty = key(letters.iter().find(|letter| value(letter).is_empty()).unwrap());
    let cut = key(cut);
    let listed = told_by(&["list"], 0);
    assert_eq!(listed.lines().count(), 4);
    let line = listed.lines().find(|line| line.starts_with(&cut)).unwrap();
    assert!(line.ends_with("cut: its record has 1048400 bytes"), "{line}");
    assert!(told_by(&["show", &garbage], 0).ends_with("garbage\n"));
    let position = cut.strip_prefix("record/").unwrap();
    let told = format!(
        "only the first 900000 of 1048400 bytes are here; the whole record stands at {position}"
    );
    assert!(told_by(&["show", &cut], 0).contains(&told));
    assert!(told_by(&["discard", &empty], 0).contains("1 discarded"));
    assert_eq!(told_by(&["list"], 0).lines().count(), 3);
    instance.wait_for("/metrics", "callscope_kafka_dead_letters 3\n").await;
    // What is tried again comes back as what it is, in another place; what is not whole stays.
    let tried = told_by(&["retry", "--all"], 5);
    assert!(tried.contains(&told) && tried.contains("2 tried again, 1 refused"), "{tried}");
    group.is_settled(&instance).await;
    let again = told_by(&["list"], 0);
    assert_eq!(again.lines().count(), 3, "{again}");
    assert!(!again.contains(&format!("{garbage}\t")) && again.contains(&cut), "{again}");
    instance.stop();
}

/// The store refuses what is of that month.
const REFUSED: (&str, i64) = ("openvidu-events-2022.01", 1_642_000_000_000);

/// An event that the store refuses, and whose document is as large as `data` as JSON.
fn refused_event(session: &str, data: &[u8]) -> Vec<u8> {
    let event = json!({"event":"participantJoined","sessionId":session,"timestamp":REFUSED.1,"connectionId":"con","location":"unknown",
                       "platform":"x","clientData":"DATA"});
    let event = event.to_string();
    let (before, after) = event.split_once("DATA").unwrap();
    [before.as_bytes(), data, after.as_bytes()].concat()
}

/// Brokers take no batch that is larger than a segment, which here is of 1 MiB where nobody says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_refused_becomes_a_letter_however_large_it_is() {
    let group = Group::on(Kafka::start("large", 1), "g", "events").await;
    let made = "kafka-topics.sh --create --topic events --partitions 1 --config max.message.bytes=16777216 --config segment.bytes=67108864";
    group.kafka.make(made).await;
    group.double.ill(&[REFUSED.0], 400, "document_parsing_exception", "because");
    let producer = group.kafka.producer(&[("message.max.bytes", "16000000")]);
    let segment = base64::engine::general_purpose::STANDARD.encode(noise(1_000_000));
    // What is no UTF-8 takes more bytes as JSON than it had.
    for (session, data) in [("a", segment.as_bytes()), ("b", &vec![0xe9; 9 << 20])] {
        let event = refused_event(session, data);
        let record = BaseRecord::to("events").key(session).payload(&event);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let events = load(26, 300);
    group.produce(&events);
    let instance = group.serve("a");
    group.has_folded(&events, &instance).await;
    let (listed, _) = group.dead_letters(&["list"], 0);
    let cut: Vec<&str> = listed.lines().filter(|line| line.contains("cut: ")).collect();
    assert!(cut.len() == 1 && cut[0].contains("cut: its document has 1"), "{listed}");
    let key = cut[0].split_once('\t').unwrap().0;
    let (told, _) = group.dead_letters(&["show", key], 0);
    let head: String = told.chars().take(500).collect();
    assert!(head.contains("cut: only the first ") && head.contains("`callscope replay"), "{head}");
    // The store would take it now, and keep half of it.
    group.takes_nothing_of(&[]);
    let (tried, _) = group.dead_letters(&["retry", "--all"], 5);
    assert!(tried.contains(&format!("{key}: refused: only the first")), "{tried}");
    let taken = listed.lines().count() - 1;
    assert!(taken > 0 && tried.contains(&format!("{taken} tried again, 1 refused")), "{tried}");
    instance.stop();

    // A topic that somebody else has made.
    group.double.ill(&[REFUSED.0], 400, "document_parsing_exception", "because");
    let made = "kafka-topics.sh --create --topic h-dead-letters --partitions 1 --config cleanup.policy=compact --config max.message.bytes=16777216";
    group.kafka.make(made).await;
    let told = group.beside("h", "events").serve("b").ended_with(3);
    assert!(told.contains("--add-config segment.bytes=67108864"), "{told}");
}

/// Their brokers delete what is read, and nothing shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_becomes_compacted_beside_an_instance_ends_it() {
    let group = Group::start("becomes", 2).await;
    group.produce(&load(27, 200));
    let instance = group.serve("a");
    group.is_settled(&instance).await;
    group.kafka.set("events", "cleanup.policy", "compact").await;
    let compacted = "topic events has cleanup.policy \"compact\"";
    let told = group.audit(&[], 3);
    assert!(told.contains(compacted) && !told.contains("records: "), "{told}");
    let told = instance.ended_with(3);
    assert!(told.contains(compacted) && told.contains("cleanup.policy=delete"), "{told}");
}

/// No state of the group tells how far they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_deleted_before_they_are_taken_over_are_told_of() {
    let group = Group::start("expired", 2).await;
    group.kafka.topic("unkeyed", 1).await;
    let rekey = [("CALLSCOPE__KAFKA__REKEY_FROM", "unkeyed")];
    let unkeyed = group.beside("g-rekey", "unkeyed");
    let events = load(28, 300);
    let (read, rest) = events.split_at(100);
    let (deleted, last) = rest.split_at(150);
    unkeyed.produce(read);
    let instance = group.serve_with("a", &rekey);
    unkeyed.is_settled(&instance).await;
    instance.stop();
    unkeyed.produce(deleted);
    group.kafka.delete_before("unkeyed", 0, 250).await;
    // The mark of its transaction is no record that is missed.
    group.kafka.produce_in_transaction("unkeyed", last);
    unkeyed.produce(&load(29, 10));
    let instance = group.serve_with("a", &rekey);
    unkeyed.is_settled(&instance).await;
    instance.shows("/metrics", "callscope_kafka_missed_total 150\n").await;
    assert!(instance.has_told("RECORDS WERE DELETED") && !instance.has_told("MADE ANEW"));

    // Fewer records than were taken over.
    group.kafka.delete("unkeyed").await;
    group.kafka.topic("unkeyed", 1).await;
    unkeyed.produce(&load(30, 20));
    unkeyed.is_settled(&instance).await;
    assert!(instance.has_told("THE TOPIC WAS MADE ANEW"), "{}", instance.told());
    instance.shows("/metrics", "callscope_kafka_missed_total 150\n").await;
    instance.stop();
}

/// It would get their settings, by which letters are deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_make_topics_by_themselves_make_none_of_callscope() {
    let group = Group::of_events(Kafka::start_obliging("obliging"), 1).await;
    let instance = group.serve("a");
    instance.holds().await;
    for round in 0..3 {
        for topic in ["g-dead-letters", "g-digests"] {
            group.kafka.delete(topic).await;
        }
        group.kafka.put("events", 0, b"key", format!("garbage {round}").as_bytes());
        group.is_settled(&instance).await;
        until(async || group.dead_letters(&["list"], 0).0.lines().count() == 1).await;
        instance.wait_for("/readyz", "\"ready\":true").await;
    }
    for topic in ["g-dead-letters", "g-digests"] {
        assert_eq!(group.kafka.setting(topic, "cleanup.policy").await, "compact", "{topic}");
    }
    instance.stop();
}

/// So quickly that who reads it hears of no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_a_topic_that_was_made_anew_are_counted_anew() {
    let group = Group::start("counted", 1).await;
    let instance = group.serve("a");
    for number in 0..3 {
        group.kafka.put("events", 0, b"key", format!("garbage {number}").as_bytes());
    }
    instance.wait_for("/metrics", "callscope_kafka_dead_letters 3\n").await;
    group.kafka.delete("g-dead-letters").await;
    let made = "kafka-topics.sh --create --topic g-dead-letters --partitions 1 --config cleanup.policy=compact";
    group.kafka.make(made).await;
    instance.wait_for("/metrics", "callscope_kafka_dead_letters 0\n").await;
    group.kafka.put("events", 0, b"key", b"garbage");
    instance.wait_for("/metrics", "callscope_kafka_dead_letters 1\n").await;
    instance.stop();
}

/// It is a letter of that machine, and keeps no other from being tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_does_not_take_of_a_webhook_stays_on_the_machine() {
    let group = Group::start("stays", 1).await;
    // In the folder whose letters are worked on below.
    let folder = group.folder.path().to_str().unwrap();
    let instance = group.serve_with("a", &[("CALLSCOPE__DATA_DIR", folder)]);
    let data = base64::engine::general_purpose::STANDARD.encode(noise(1_000_000));
    let event = json!({"event":"signalSent","sessionId":"s","timestamp":1,"from":"x","type":"x","data":data});
    instance.post(&[event.to_string(), "garbage".to_owned()]).await;
    instance.wait_for("/metrics", "callscope_dead_letters 1\n").await;
    instance.wait_for("/metrics", "callscope_records_total{outcome=\"dead\"} 1\n").await;
    let (listed, warned) = group.dead_letters(&["list"], 0);
    assert!(listed.lines().count() == 1 && warned.contains("letters of this machine"), "{listed}");
    instance.stop();
    assert_eq!(group.dead_letters(&["list"], 0).0.lines().count(), 2);
    let (tried, _) = group.dead_letters(&["retry", "--all"], 5);
    assert!(tried.contains("1 tried again, 1 refused"), "{tried}");
}

/// Brokers measure batches, which are larger than a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_small_batches_takes_everything_but_what_is_larger_than_one() {
    let group = Group::on(Kafka::start("small", 1), "g", "small").await;
    let made =
        "kafka-topics.sh --create --topic small --partitions 2 --config max.message.bytes=20000";
    group.kafka.make(made).await;
    let signal = |number: usize, bytes: usize| {
        let data = base64::engine::general_purpose::STANDARD
            .encode(&noise(300 * 1000)[number * 1000..][..bytes]);
        let session = format!("s{number}");
        json!({"event":"signalSent","sessionId":session,"timestamp":1_700_000_000_000_i64,"from":"x","type":"x","data":data})
            .to_string()
    };
    let mut events: Vec<String> = (0..300).map(|number| signal(number, 900)).collect();
    let told = group.import("a", &events);
    assert!(told.contains("300 sent, 0 skipped, 0 refused"), "{told}");
    // One that is too large costs its neighbours nothing.
    events.insert(150, signal(0, 30_000));
    let file = group.folder.path().join("cdr.log");
    std::fs::write(&file, events.join("\n")).unwrap();
    let told = run(group.command("a").args(["import", "--to", "kafka"]).arg(&file), 5).1;
    assert!(told.contains("300 sent, 0 skipped, 1 refused"), "{told}");
    let partitions = (0..2).map(|partition| group.kafka.records_of("small", partition).len());
    assert_eq!(partitions.sum::<usize>(), 600);
}

/// Names of two groups and their instances may join to the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_do_not_fence_each_other_whatever_their_names() {
    let group = Group::on(Kafka::start("names", 1), "rf", "events").await;
    group.kafka.topic("events", 2).await;
    let other = group.beside("rf-a", "events").with_other_store().await;
    let instances = [group.serve("a-b"), other.serve("b")];
    for instance in &instances {
        instance.holds().await;
    }
    let events = load(23, 300);
    group.produce(&events);
    for (group, instance) in [&group, &other].into_iter().zip(instances) {
        group.has_folded(&events, &instance).await;
        assert!(!instance.has_told("trying again"), "{}", instance.told());
        instance.stop();
    }
}

/// `README.md` says how others key their events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_of_the_readme_keys_events_as_callscope_does() {
    let group = Group::start("readme", 12).await;
    let here = env!("CARGO_MANIFEST_DIR");
    let readme = std::fs::read_to_string(format!("{here}/README.md")).unwrap();
    let line = readme.lines().find_map(|line| line.strip_prefix("jq -r '")).unwrap();
    let (program, _) = line.split_once('\'').unwrap();
    let file = group.folder.path().join("events.jsonl");
    let mut samples: Vec<_> = std::fs::read_dir(format!("{here}/fixtures/samples"))
        .unwrap()
        .map(|found| found.unwrap().path())
        .collect();
    samples.sort();
    let compact = Command::new("jq").args(["-c", "."]).args(&samples).output().unwrap();
    std::fs::write(&file, &compact.stdout).unwrap();
    let keyed = run(Command::new("jq").args(["-r", program]).arg(&file), 0).0;
    let keys: Vec<&str> = keyed.lines().map(|line| line.split_once('\t').unwrap().0).collect();
    // Some samples are documents and templates.
    let told = group.command("a").args(["check", "--events"]).arg(&file).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!([told.lines().count(), keys.len()], [samples.len(); 2], "{told}");
    let mut with_key = 0;
    for ((line, key), sample) in told.lines().zip(keys).zip(samples) {
        if line.contains(", no key, ") {
            assert_eq!(key, "", "{}", sample.display());
        } else if let Some((_, place)) = line.split_once(", key ") {
            assert_eq!(place.split_once(", partition ").unwrap().0, key, "{}", sample.display());
            with_key += 1;
        }
    }
    assert!(with_key > 50, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_shows_what_is_open_anywhere_and_one_counts_it() {
    let group = Group::start("view", 4).await;
    let counting = [("CALLSCOPE__STATS__EVERY", "60s")];
    let first = group.serve_with("a", &counting);
    let second = group.serve_with("b", &counting);
    let now = chrono::Utc::now().timestamp_millis();
    // Begun ten minutes ago and still open: ticks of which all lanes can tell.
    let events: Vec<String> = (0..40)
        .flat_map(|number| {
            let (id, start) = (format!("s{number}"), now - 600_000 + number);
            let unique = format!("{id}_{start}");
            [
                json!({"event":"sessionCreated","sessionId":id,"uniqueSessionId":unique,"timestamp":start}),
                json!({"event":"participantJoined","sessionId":id,"uniqueSessionId":unique,"timestamp":start + 1,
                       "connectionId":format!("con_{number}"),"location":"unknown","ip":"10.0.0.1","platform":"x"}),
                json!({"event":"signalSent","sessionId":id,"uniqueSessionId":unique,"timestamp":now - 1000,"type":"t","data":"d"}),
            ]
        })
        .map(|event| event.to_string())
        .collect();
    group.produce(&events);
    group.is_settled(&first).await;
    for instance in [&first, &second] {
        instance.wait_for("/api/sessions?limit=1", "\"sessions\":40").await;
        instance.wait_for("/readyz", "\"ready\":true").await;
    }
    let counted = || {
        let documents = group.double.documents().into_values().map(|(_, _, json)| json);
        documents
            .filter(|json| json["elastic_type"] == "platformStats" && json["scope"] == "cluster")
            .map(|json| json["num_sessions"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    until(async || counted().len() >= 5).await;
    assert!(counted().iter().all(|count| *count == 40), "{:?}", counted());

    // Records that are keyed by something else are noticed, also where sessions have no name that is used once.
    let joined = json!({"event":"participantJoined","sessionId":"old","timestamp":now - 500,"connectionId":"con_old",
                        "location":"unknown","platform":"x"});
    let partition = |key: &str| callscope::kafka::key::partition(key.as_bytes(), 4);
    let other = (0..).map(|number: u32| number.to_string());
    let other = other.into_iter().find(|key| partition(key) != partition("old")).unwrap();
    let producer = group.kafka.producer(&[("partitioner", "murmur2")]);
    for (key, name) in [("old", "con_1"), (&other, "con_2")] {
        first.shows("/readyz", "\"ready\":true").await;
        let event = joined.to_string().replace("con_old", name);
        producer
            .send(BaseRecord::to("events").key(key).payload(&event))
            .map_err(|(error, _)| error)
            .unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        group.is_settled(&first).await;
    }
    first.wait_for("/readyz", "session old is in partitions").await;
    first.stop();
    second.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_brokers_delete_too_early_are_counted_and_marks_are_none() {
    let group = Group::start("deleted", 1).await;
    let events = load(19, 300);
    let (read, rest) = events.split_at(100);
    let (deleted, last) = rest.split_at(150);
    group.produce(read);
    group.deals_with_all().await;
    group.produce(deleted);
    let end = i64::try_from(read.len() + deleted.len()).unwrap();
    group.kafka.delete_before("events", 0, end).await;
    // The mark of its transaction is the last thing in the partition.
    group.kafka.produce_in_transaction("events", last);
    let instance = group.serve("a");
    let missed = format!("callscope_kafka_missed_total {}\n", deleted.len());
    instance.wait_for("/metrics", &missed).await;
    instance
        .wait_for("/metrics", "callscope_kafka_lag{topic=\"events\",partition=\"0\"} 0\n")
        .await;
    assert!(instance.has_told("RECORDS WERE DELETED"));
    assert_same(&group.documents(), &imported(&[read, last].concat()));
    instance.stop();
    let told = group.audit(&[], 6);
    let gap = format!("gap: partition 0: {} records were deleted by the brokers", deleted.len());
    assert!(told.contains(&gap) && told.matches("gap:").count() == 1, "{told}");
    assert!(told.contains(" 0 behind\n"), "{told}");

    // Who comes later begins with what is there, and is no worse for it.
    group.kafka.produce_in_transaction("events", read);
    let later = group.beside("h", "events");
    let instance = later.serve("b");
    until(async || {
        let metrics = instance.get("/metrics").await;
        let is_settled = "callscope_kafka_lag{topic=\"events\",partition=\"0\"} 0\n";
        metrics.contains("callscope_kafka_missed_total 0\n") && metrics.contains(is_settled)
    })
    .await;
    instance.stop();
    let told = later.is_accounted_for();
    assert!(told.contains("partition 0: 1 offsets held no record"), "{told}");
    assert!(told.contains(&format!("records: {} = ", last.len() + read.len())), "{told}");
}

/// Nor does a record have to come behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_brokers_delete_at_the_end_are_counted() {
    let group = Group::start("ended", 1).await;
    let events = &load(35, 60)[..60];
    group.produce(&events[..20]);
    group.deals_with_all().await;
    group.produce(&events[20..40]);
    group.kafka.delete_before("events", 0, 40).await;
    let told = group.audit(&[], 6);
    assert!(told.contains("gap: events 0: 20 records behind 20 were deleted"), "{told}");
    // While nobody runs.
    let instance = group.serve_with("a", &[("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "60s")]);
    instance.wait_for("/metrics", "callscope_kafka_missed_total 20\n").await;
    assert!(instance.has_told("RECORDS WERE DELETED"));
    group.is_settled(&instance).await;
    let told = group.audit(&[], 6);
    let gap = "gap: partition 0: 20 records were deleted";
    assert!(told.contains(gap) && told.matches("gap:").count() == 1, "{told}");
    // Beside one that does not get to it.
    instance.signal("-STOP");
    // The brokers may have been asked already, and then answer with this one.
    group.produce(&events[40..41]);
    group.produce(&events[41..]);
    group.kafka.delete_before("events", 0, 60).await;
    instance.signal("-CONT");
    until(async || {
        let metrics = instance.get("/metrics").await;
        let is_missed = |count| metrics.contains(&format!("kafka_missed_total {count}\n"));
        is_missed(39) || is_missed(40)
    })
    .await;
    group.is_settled(&instance).await;
    instance.stop();
    let told = group.audit(&[], 6);
    let is_gap = |count| told.contains(&format!("gap: partition 0: {count} records were deleted"));
    assert!((is_gap(39) || is_gap(40)) && told.matches("gap:").count() == 1, "{told}");
}

/// How many records have an outcome, and how many were deleted before, as an instance counts them.
async fn counted(instance: &Instance) -> (u64, u64) {
    let metrics = instance.get("/metrics").await;
    let sum = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    (sum("callscope_records_total{"), sum("callscope_kafka_missed_total "))
}

/// Also in the midst of what is taken at once: a lane that was paused goes on behind what waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_brokers_delete_while_the_store_is_away_are_counted() {
    let group = Group::start("hole", 1).await;
    let events = load(18, 30_000);
    group.store_is_away();
    let settings = [
        ("CALLSCOPE__KAFKA__QUEUE_BYTES", "20000000"),
        ("CALLSCOPE__LOG__LEVEL", "info,callscope::kafka::intake=debug"),
    ];
    let instance = group.serve_with("a", &settings);
    instance.holds().await;
    (0..4).for_each(|_| group.produce(&events));
    let total = 4 * events.len();
    let paused = "partitions=[0] is_paused=true";
    instance.tells(paused).await;
    group.kafka.delete_before("events", 0, i64::try_from(total - 5000).unwrap()).await;
    group.store_is_back();
    group.is_settled(&instance).await;
    let (records, missed) = counted(&instance).await;
    assert!(missed > 0);
    assert_eq!(records + missed, u64::try_from(total).unwrap());
    instance.stop();
    let told = group.audit(&[], 6);
    let gap = format!("gap: partition 0: {missed} records were deleted by the brokers");
    assert!(told.contains(&gap) && told.matches("gap:").count() == 1, "{told}");
}

/// Reading begins before the state is here: what was read by then is not gone, and what is gone is no topic made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_brokers_delete_while_partitions_are_taken_over_are_counted() {
    let kafka = Kafka::start("taken", 1);
    let events = load(19, 20_000);
    for (topic, is_known) in [("known", true), ("new", false)] {
        let group = Group::on(kafka.address(), topic, topic).await;
        group.kafka.topic(topic, 1).await;
        if is_known {
            group.produce(&events[..1000]);
            group.deals_with_all().await;
        }
        (0..3).for_each(|_| group.produce(&events));
        let instance = group.serve_with("a", &[("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "60s")]);
        instance.tells("partitions assigned").await;
        group.kafka.delete_before(topic, 0, 50_000).await;
        group.is_settled(&instance).await;
        let (records, missed) = counted(&instance).await;
        let total = u64::try_from(3 * events.len()).unwrap();
        // A group that begins misses nothing of before.
        let is_whole = records + missed == total || !is_known && records + missed < total;
        assert!(is_whole, "{records} and {missed} of {total}");
        instance.stop();
        let told = group.audit(&[], if missed > 0 { 6 } else { 0 });
        assert_eq!(told.matches("gap:").count(), usize::from(missed > 0), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_held_no_record_are_no_gap_when_they_are_gone() {
    let group = Group::start("marks", 1).await;
    let events = &load(19, 100)[..50];
    group.kafka.topic("emptied", 1).await;
    group.kafka.produce("emptied", &events[..20]);
    group.kafka.delete_before("emptied", 0, 20).await;
    let both = group.beside("g", "events,emptied");
    group.kafka.produce_in_transaction("events", events);
    let instance = both.serve("a");
    // The mark included, and what was there before the group.
    for (topic, end) in [("events", 51), ("emptied", 20)] {
        until(async || {
            instance.get("/healthz").await;
            group.kafka.committed(0, "g", (topic, 0)) == Some(end)
        })
        .await;
    }
    assert_eq!(counted(&instance).await, (50, 0));
    both.is_accounted_for();
    group.kafka.delete_before("events", 0, 51).await;
    both.is_accounted_for();
    instance.stop();
    let instance = both.serve("b");
    instance.holds().await;
    group.kafka.produce("emptied", &events[..1]);
    group.beside("g", "emptied").is_settled(&instance).await;
    assert_eq!(counted(&instance).await, (1, 0));
    instance.stop();
    both.is_accounted_for();
}

/// Of offsets without a record it is asked what they were. Here each record has some before it, and a fetch that waits for more
/// stands before each question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_before_every_record_hold_nobody_up() {
    let group = Group::start("holes", 4).await;
    group.kafka.topic("unkeyed", 4).await;
    group.kafka.topic("other", 1).await;
    // So many that the last of each partition is one of them.
    let events = &load(36, 320)[..320];
    let (direct, other) = events.split_at(160);
    let undone = group.kafka.producer(&[("transactional.id", "undone")]);
    undone.init_transactions(Duration::from_secs(60)).unwrap();
    let producer = group.kafka.producer(&[("partitioner", "murmur2_random")]);
    for (topic, events) in [("events", direct), ("unkeyed", other)] {
        for four in events.chunks(4) {
            undone.begin_transaction().unwrap();
            for partition in 0..4 {
                let record = BaseRecord::<(), _>::to(topic).partition(partition).payload("{}");
                undone.send(record).map_err(|(error, _)| error).unwrap();
            }
            undone.flush(Duration::from_secs(60)).unwrap();
            undone.abort_transaction(Duration::from_secs(60)).unwrap();
            if events.ends_with(four) {
                // Marks are written behind the answer, and the next transaction begins only once they are there: none of these
                // stands behind the last record.
                undone.begin_transaction().unwrap();
                let record = BaseRecord::<(), _>::to("other").payload("{}");
                undone.send(record).map_err(|(error, _)| error).unwrap();
                undone.flush(Duration::from_secs(60)).unwrap();
                undone.abort_transaction(Duration::from_secs(60)).unwrap();
            }
            for (partition, event) in (0..).zip(four) {
                let json: serde_json::Value = serde_json::from_str(event).unwrap();
                let keyed = BaseRecord::to(topic).key(json["sessionId"].as_str().unwrap());
                let unkeyed = BaseRecord::to(topic).partition(partition);
                let record = if topic == "events" { keyed } else { unkeyed };
                producer.send(record.payload(event)).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(Duration::from_secs(60)).unwrap();
        }
    }
    let instance = group.serve_with(
        "a",
        &[
            ("CALLSCOPE__KAFKA__REKEY_FROM", "unkeyed"),
            ("CALLSCOPE__KAFKA__PROPERTIES", "fetch.min.bytes=100000,fetch.wait.max.ms=500"),
        ],
    );
    group.beside("g-rekey", "unkeyed").is_settled(&instance).await;
    group.has_folded(events, &instance).await;
    let (_, missed) = counted(&instance).await;
    assert_eq!(missed, 0);
    instance.stop();
    group.is_accounted_for();
}

/// Who has the first partition asks; what it is told goes to the topic like everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_group_asks_the_platform_and_all_show_what_it_is_told() {
    let group = Group::start("platform", 4).await;
    let platform = OpenVidu::start(Version::V2_29).await;
    let ids: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
    let shown = ids.iter().map(|id| session(Version::V2_29, id, 1_700_000_000_000));
    platform.shows(&shown.collect::<Vec<_>>());
    let url = format!("http://{}/", platform.address);
    let asks = [
        ("CALLSCOPE__SOURCES__DEFAULT__REST__URL", url.as_str()),
        ("CALLSCOPE__SOURCES__DEFAULT__REST__SECRET", SECRET),
        ("CALLSCOPE__SOURCES__DEFAULT__REST__EVERY", "1s"),
    ];
    let member = async |name| {
        let member = group.serve_with(name, &asks);
        member.holds().await;
        member
    };
    let members = [member("a").await, member("b").await];
    let count = |kind: &str| {
        let documents = group.double.documents().into_values();
        documents.filter(|(_, _, json)| json["elastic_type"] == kind).count()
    };
    until(async || {
        members[0].get("/healthz").await;
        count("kms") == 6 * ids.len()
    })
    .await;
    for member in &members {
        member.wait_for("/api/sessions?limit=1", "\"sessions\":8").await;
    }
    let asked = "callscope_rest_polls_total{source=\"default\",outcome=\"ok\"}";
    assert!(members[0].get("/metrics").await.contains(asked));
    assert!(!members[1].get("/metrics").await.contains(asked));
    group.is_settled(&members[0]).await;
    // Sessions of long ago are told to be there, too.
    assert_eq!((count("kms"), count("seen")), (48, 32));
    members.into_iter().for_each(Instance::stop);
    group.is_accounted_for();
}

/// The brokers give a name what it had before, until its session is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_started_again_with_other_topics_reads_them() {
    let one = Group::on(Kafka::start("again", 1), "g", "one").await;
    for topic in ["one", "two", "old", "older"] {
        one.kafka.topic(topic, 2).await;
    }
    let events = load(34, 600);
    let parts: Vec<&[String]> = events.chunks(events.len().div_ceil(4)).collect();
    one.produce(parts[0]);
    one.kafka.produce("old", parts[1]);
    let old = one.beside("g-rekey", "old");
    let instance = one.serve_with("a", &[("CALLSCOPE__KAFKA__REKEY_FROM", "old")]);
    old.is_settled(&instance).await;
    one.is_settled(&instance).await;
    instance.stop();
    let both = one.beside("g", "one,two");
    one.kafka.produce("two", parts[2]);
    one.kafka.produce("older", parts[3]);
    let instance = both.serve_with("a", &[("CALLSCOPE__KAFKA__REKEY_FROM", "older")]);
    one.beside("g-rekey", "older").is_settled(&instance).await;
    one.beside("g", "two").is_settled(&instance).await;
    one.is_settled(&instance).await;
    instance.stop();
    assert_same(&one.documents(), &imported(&events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_rekeys_makes_the_topic_of_letters_and_sends_nothing_twice() {
    let group = Group::start("letterless", 2).await;
    group.kafka.topic("unkeyed", 1).await;
    let unkeyed = group.beside("g-rekey", "unkeyed");
    let rekeys = [("CALLSCOPE__KAFKA__REKEY_FROM", "unkeyed")];
    let instance = group.serve_with("a", &rekeys);
    let events = &load(28, 300)[..300];
    unkeyed.produce(&events[..100]);
    unkeyed.is_settled(&instance).await;
    group.kafka.delete("g-dead-letters").await;
    let producer = group.kafka.producer(&[]);
    producer.send(BaseRecord::<(), ()>::to("unkeyed").partition(0)).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    unkeyed.produce(&events[100..200]);
    unkeyed.is_settled(&instance).await;
    let (told, _) = group.dead_letters(&["list"], 0);
    assert!(told.starts_with("record/kafka/unkeyed/0@100"), "{told}");
    let taken = || (0..2).map(|lane| group.kafka.records_of("events", lane).len()).sum::<usize>();
    assert_eq!(taken(), 200);
    instance.stop();

    // What is deleted while nobody runs is told of, though nothing comes behind it.
    unkeyed.produce(&events[200..]);
    group.kafka.delete_before("unkeyed", 0, 301).await;
    let instance = group.serve_with("b", &rekeys);
    instance.wait_for("/metrics", "callscope_kafka_missed_total 100\n").await;
    assert!(instance.has_told("RECORDS WERE DELETED"));
    assert_eq!(taken(), 200);
    instance.stop();
}

/// Of a young group most lanes have dealt with nothing yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_newcomer_ends_nobody_of_a_group_that_has_begun() {
    let one = Group::on(Kafka::start("newcomer", 1), "g", "one").await;
    one.kafka.topic("one", 2).await;
    one.kafka.topic("two", 2).await;
    for event in &load(34, 100) {
        one.kafka.put("one", 0, b"k", event.as_bytes());
    }
    let members = ["a", "b"].map(|name| one.serve(name));
    for member in &members {
        member.holds().await;
    }
    one.is_settled(&members[0]).await;
    for name in ["c", "d", "e"] {
        let told = one.beside("g", "two").serve(name).ended_with(3);
        assert!(
            told.contains("members read different topics")
                || told.contains("has dealt with kafka/"),
            "{told}"
        );
    }
    for member in members {
        member.shows("/healthz", "200 OK").await;
        member.stop();
    }
}

/// It shares a topic with the others, so each of them has a part of a lane while it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_member_ends_nobody_else_however_often_it_is_started_again() {
    let both = Group::on(Kafka::start("wrong", 1), "g", "one,two").await;
    both.kafka.topic("one", 4).await;
    both.kafka.topic("two", 4).await;
    let events = load(35, 600);
    let (first, second) = events.split_at(300);
    both.kafka.produce("two", first);
    let members = ["a", "b"].map(|name| both.serve(name));
    for member in &members {
        member.holds().await;
    }
    both.beside("g", "two").is_settled(&members[0]).await;
    for _ in 0..6 {
        let told = both.beside("g", "one").serve("c").ended_with(3);
        assert!(
            told.contains("members read different topics")
                || told.contains("has dealt with kafka/"),
            "{told}"
        );
    }
    both.kafka.produce("one", second);
    both.beside("g", "one").is_settled(&members[0]).await;
    assert_same(&both.documents(), &imported(&events));
    for member in members {
        member.shows("/healthz", "200 OK").await;
        member.stop();
    }
}

/// History in which nothing is open any more, and of which a session is forgotten as soon as it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_with_wrong_keys_are_noticed_though_all_of_it_is_long_over() {
    let group = Group::start("spread", 4).await;
    let producer = group.kafka.producer(&[]);
    let mut placed: Vec<(String, i32)> = load(9, 3000).into_iter().zip((0..4).cycle()).collect();
    // A year later somebody is in each partition, whose own records are all in it.
    for partition in 0..4 {
        let later = open_session(partition.into(), 1_750_000_000_000);
        placed.extend(later.map(|event| (event.to_string(), partition)));
    }
    for (event, partition) in &placed {
        let record = BaseRecord::<(), str>::to("events").partition(*partition).payload(event);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let instance = group.serve_with("a", &[("CALLSCOPE__SESSIONS__KEEP", "1s")]);
    instance.wait_for("/readyz", "records are not keyed by sessionId").await;
    group.is_settled(&instance).await;
    instance.shows("/readyz", "\"ready\":false").await;
    assert!(!instance.get("/metrics").await.contains("callscope_kafka_split_sessions_total 0\n"));
    instance.stop();
}

/// A lane is a partition number over all topics: of members that read different ones each would have a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_other_topics_than_the_group_ends_and_says_so() {
    let group = Group::start("mixed", 4).await;
    group.kafka.topic("more", 4).await;
    let events = load(21, 900);
    let (first, second) = events.split_at(600);
    group.produce(first);
    let instance = group.serve("a");
    group.is_settled(&instance).await;
    let both = group.beside("g", "events,more");
    let told = both.serve("b").ended_with(3);
    assert!(told.contains("members read different topics"), "{told}");
    group.has_folded(first, &instance).await;
    instance.stop();
    // As it says.
    group.kafka.produce("more", second);
    let again = both.serve("b");
    group.beside("g", "more").is_settled(&again).await;
    assert_same(&group.documents(), &imported(&events));
    again.stop();
    // Nor can one be left out.
    let told = group.beside("g", "more").refused("serve", &[]);
    assert!(told.contains("has dealt with kafka/events/"), "{told}");
}

/// Each would be given whole lanes, and the same ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_share_no_topic_end_and_say_so() {
    let one = Group::on(Kafka::start("disjoint", 1), "g", "one").await;
    let two = one.beside("g", "two");
    one.kafka.topic("one", 2).await;
    one.kafka.topic("two", 2).await;
    let mut instances = vec![one.serve("a"), two.serve("b")];
    until(async || instances.iter().any(Instance::is_over)).await;
    let over = instances.iter().position(Instance::is_over).unwrap();
    let told = instances.remove(over).ended_with(3);
    assert!(told.contains("members read different topics"), "{told}");
    drop(instances);
    // As it says.
    let both = one.beside("g", "one,two");
    let events = load(34, 600);
    let (first, second) = events.split_at(300);
    one.produce(first);
    two.produce(second);
    let instance = both.serve("c");
    one.is_settled(&instance).await;
    two.is_settled(&instance).await;
    assert_same(&one.documents(), &imported(&events));

    // Who has a state goes on, and by that the other one is refused.
    one.kafka.topic("three", 2).await;
    let told = one.beside("g", "three").serve("d").ended_with(3);
    assert!(told.contains("has dealt with kafka/"), "{told}");
    instance.shows("/healthz", "200 OK").await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_vanishes_beside_an_instance_is_told_of_or_made_anew() {
    let group = Group::start("vanish", 1).await;
    let events = load(22, 600);
    group.produce(&events);
    let instance = group.serve("a");
    group.has_folded(&events, &instance).await;
    // One of its own, of which nothing is lost but what was in it.
    group.kafka.delete("g-dead-letters").await;
    group.kafka.put("events", 0, b"key", b"garbage");
    group.is_settled(&instance).await;
    let (told, _) = group.dead_letters(&["list"], 0);
    assert!(told.starts_with("record/kafka/events/0@") && told.lines().count() == 1, "{told}");
    group.kafka.delete("g-digests").await;
    instance.wait_for("/readyz", "\"ready\":false").await;
    instance.wait_for("/readyz", "\"ready\":true").await;
    // The one that is read: its first records stand before what was dealt with.
    group.kafka.delete("events").await;
    group.kafka.topic("events", 1).await;
    group.produce(&load(23, 50));
    let told = instance.ended_with(3);
    assert!(told.contains("made anew") && told.contains("another kafka.group"), "{told}");

    // However long it is before somebody looks, and whether anything was read by this instance or by the one before.
    let settings = [
        ("CALLSCOPE__LOG__LEVEL", "info,callscope::kafka::anchor=debug"),
        ("CALLSCOPE__KAFKA__SESSION_TIMEOUT", "60s"),
    ];
    let cases =
        [("h", "others", false, false), ("i", "idle", true, false), ("j", "older", true, true)];
    for (name, topic, is_idle, is_older) in cases {
        let other = group.beside(name, topic);
        other.kafka.topic(topic, 1).await;
        other.produce(&load(24, 20));
        if is_idle {
            other.deals_with_all().await;
        }
        let instance = other.serve_with("b", &settings);
        other.is_settled(&instance).await;
        instance.tells("anchored").await;
        instance.signal("-STOP");
        other.kafka.delete(topic).await;
        other.kafka.topic(topic, 1).await;
        if is_older {
            let producer = other.kafka.producer(&[]);
            let older = chrono::Utc::now().timestamp_millis() - 3_600_000;
            for event in &load(25, 400) {
                let record = BaseRecord::<(), str>::to(topic).payload(event).timestamp(older);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(Duration::from_secs(60)).unwrap();
        } else {
            other.produce(&load(25, 400));
        }
        instance.signal("-CONT");
        let told = instance.ended_with(3);
        // Or the brokers have told it already that the topic was gone.
        let is_told = told.contains("holds other records") || told.contains("know no offset of");
        assert!(is_told && told.contains("another kafka.group"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_hang_are_told_of() {
    let group = Group::start("hang", 1).await;
    let instance = group.serve("a");
    instance.holds().await;
    instance.wait_for("/readyz", "\"ready\":true").await;
    group.kafka.signal(0, "-STOP");
    instance.wait_for("/readyz", "\"ready\":false").await;
    group.kafka.signal(0, "-CONT");
    instance.wait_for("/readyz", "\"ready\":true").await;
    let events = load(24, 300);
    group.produce(&events);
    group.has_folded(&events, &instance).await;
    instance.stop();
}

/// What changes from then on would be taken for the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_made_anew_beside_an_instance_is_taken_for_no_state() {
    let group = Group::start("anew", 2).await;
    let events = load(20, 900);
    let (before, after) = events.split_at(600);
    group.produce(before);
    let instance = group.serve("a");
    group.is_settled(&instance).await;
    group.kafka.delete("g-state").await;
    let made =
        "kafka-topics.sh --create --topic g-state --partitions 2 --config cleanup.policy=compact";
    group.kafka.make(made).await;
    group.produce(after);
    group.is_settled(&instance).await;
    instance.stop();
    let told = group.refused("serve", &[]);
    assert!(told.contains("no beginning") && told.contains("another kafka.group"), "{told}");
    // As it says.
    let again = group.beside("h", "events");
    let instance = again.serve("a");
    again.has_folded(&events, &instance).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_with_wrong_keys_are_taken_over_by_session() {
    let group = Group::start("rekey", 4).await;
    group.kafka.topic("unkeyed", 3).await;
    let events = load(9, 3000);
    let producer = group.kafka.producer(&[]);
    for event in &events {
        producer.send(BaseRecord::<(), str>::to("unkeyed").payload(event)).unwrap();
    }
    // Nothing at all is no event, and becomes a letter.
    producer.send(BaseRecord::<(), ()>::to("unkeyed").partition(0)).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    let instance = group.serve_with("a", &[("CALLSCOPE__KAFKA__REKEY_FROM", "unkeyed")]);
    group.beside("g-rekey", "unkeyed").is_settled(&instance).await;
    let taken_over = format!("callscope_kafka_rekeyed_total {}\n", events.len());
    instance.shows("/metrics", &taken_over).await;
    for partition in 0..3 {
        let lag =
            format!("callscope_kafka_rekey_lag{{topic=\"unkeyed\",partition=\"{partition}\"}} 0\n");
        instance.wait_for("/metrics", &lag).await;
    }
    group.has_folded(&events, &instance).await;
    instance.shows("/readyz", "\"ready\":true").await;
    let (told, _) = group.dead_letters(&["list"], 0);
    assert!(told.starts_with("record/kafka/unkeyed/0@") && told.lines().count() == 1, "{told}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_brokers_one_may_die_at_a_time() {
    let mut group = Group::of_events(Kafka::start("three", 3), 4).await;
    let events = load(10, 4000);
    let instance = group.serve("a");
    instance.holds().await;
    // Whichever coordinates the group or its transactions is among them.
    for (node, part) in events.chunks(events.len().div_ceil(3)).enumerate() {
        group.kafka.kill(node);
        group.produce(part);
        group.kafka.run(node);
        group.kafka.is_ready(3);
    }
    group.has_folded(&events, &instance).await;
    instance.stop();
}

/// Partitions that are added under load move sessions to other lanes than their state is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grew_is_taken_over_as_the_message_says() {
    let group = Group::on(Kafka::start("grown", 1), "g", "grown").await;
    group.kafka.topic("grown", 4).await;
    let events = load(14, 6000);
    let (before, rest) = events.split_at(2000);
    let running = group.serve("a");
    running.holds().await;
    group.produce(before);
    group.has_begun().await;
    group.kafka.grow("grown", 6).await;
    let (during, after) = rest.split_at(2000);
    group.produce(during);
    let told = running.ended_with(3);
    assert!(told.contains("g-state has 4 partitions and grown has 6"), "{told}");
    for advice in ["make a new topic", "grown in kafka.rekey_from", "give kafka.group another name"]
    {
        assert!(told.contains(advice), "{told}");
    }

    group.produce(after);
    group.kafka.topic("new", 6).await;
    let other = group.beside("h", "new");
    let instance = other.serve_with("b", &[("CALLSCOPE__KAFKA__REKEY_FROM", "grown")]);
    group.beside("h-rekey", "grown").is_settled(&instance).await;
    other.has_folded(&events, &instance).await;
    instance.shows("/readyz", "\"ready\":true").await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_do_not_fit_together_are_refused_by_name() {
    let four = Group::on(Kafka::start("counts", 1), "h", "four").await;
    four.kafka.topic("four", 4).await;
    four.kafka.topic("six", 6).await;
    let refused =
        |topics: &'static str, name: &'static str| four.beside(name, topics).refused("serve", &[]);
    let told = refused("four,six", "g");
    assert!(told.contains("four has 4 partitions, six has 6 partitions"), "{told}");
    let told = refused("nowhere", "g");
    assert!(told.contains("there is no topic nowhere"), "{told}");
    // Of two that are to be taken over one is there.
    for verb in ["check", "serve"] {
        let told = four.refused(verb, &[("CALLSCOPE__KAFKA__REKEY_FROM", "six,sicks")]);
        assert!(told.contains("no topic sicks") && told.contains("kafka.rekey_from"), "{told}");
    }
    let told = four.beside("never", "four").audit(&[], 3);
    assert!(
        told.contains("group never has no state yet") && told.contains("kafka.group"),
        "{told}"
    );

    // Brokers that would delete what is old.
    four.kafka.topic("l-state", 4).await;
    let told = refused("four", "l");
    assert!(told.contains("topic l-state has cleanup.policy \"delete\""), "{told}");
    let keep =
        "--entity-name l-state --add-config max.message.bytes=16777216,cleanup.policy=compact,";
    assert!(told.contains(keep) && !told.contains("delete it"), "{told}");
    for topic in ["n-dead-letters", "o-digests"] {
        four.kafka.topic(topic, 1).await;
        let (name, _) = topic.split_once('-').unwrap();
        for verb in ["check", "serve"] {
            let told = four.beside(name, "four").refused(verb, &[]);
            let wrong = format!("topic {topic} has cleanup.policy \"delete\"");
            assert!(told.contains(&wrong) && told.contains("or delete it"), "{told}");
        }
    }

    // Of two topics one was given more partitions: it does no good to give the other one as many.
    four.kafka.topic("also", 4).await;
    let both = four.beside("p", "four,also");
    let instance = both.serve("a");
    instance.holds().await;
    instance.stop();
    four.kafka.grow("also", 6).await;
    let told = both.refused("serve", &[]);
    assert!(told.contains("p-state has 4 partitions and also has 6"), "{told}");
    assert!(
        told.contains("make a new topic") && told.contains("also in kafka.rekey_from"),
        "{told}"
    );
    assert!(!told.contains("equal numbers"), "{told}");

    // Brokers that would delete all events of a session but the last.
    let made =
        "kafka-topics.sh --create --topic last --partitions 4 --config cleanup.policy=compact";
    four.kafka.make(made).await;
    let told = refused("last", "m");
    assert!(told.contains("topic last has cleanup.policy \"compact\""), "{told}");

    // Partitions that were added while nobody ran.
    four.produce(&load(11, 300));
    four.deals_with_all().await;
    for topic in ["h-state", "h-dead-letters"] {
        assert_eq!(four.kafka.setting(topic, "max.message.bytes").await, "16777216");
    }
    four.kafka.grow("four", 5).await;
    let told = refused("four", "h");
    assert!(told.contains("h-state has 4 partitions and four has 5"), "{told}");
    let told = four.refused("check", &[]);
    assert!(told.contains("h-state has 4 partitions and four has 5"), "{told}");

    // A topic that somebody has deleted and made anew.
    four.kafka.topic("five", 5).await;
    let five = four.beside("k", "five");
    five.produce(&load(12, 300));
    five.deals_with_all().await;
    four.kafka.delete("five").await;
    four.kafka.topic("five", 5).await;
    let told = refused("five", "k");
    assert!(told.contains("made anew") && told.contains("kafka.group"), "{told}");
    // However long it is by now.
    five.produce(&load(12, 900));
    let told = refused("five", "k");
    assert!(told.contains("made anew") && told.contains("kafka.group"), "{told}");

    // Offsets whose state somebody has deleted.
    let six = four.beside("i", "six");
    six.produce(&load(12, 300));
    six.deals_with_all().await;
    four.kafka.delete("i-state").await;
    let told = refused("six", "i");
    assert!(told.contains("its state in topic i-state") && told.contains("kafka.group"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_ask_for_tls_and_a_password_get_them() {
    let (kafka, door, certificate) = Kafka::start_secure("secure");
    let group = Group::of_events(kafka, 4).await;
    let events = load(16, 600);
    let settings = |mechanism: &'static str, password: &'static str| {
        [
            ("CALLSCOPE__KAFKA__BROKERS", &*door),
            ("CALLSCOPE__KAFKA__TLS", "true"),
            ("CALLSCOPE__KAFKA__CA", certificate.to_str().unwrap()),
            ("CALLSCOPE__KAFKA__MECHANISM", mechanism),
            ("CALLSCOPE__KAFKA__USERNAME", "callscope"),
            ("CALLSCOPE__KAFKA__PASSWORD", password),
        ]
    };
    for (part, mechanism) in events.chunks(events.len().div_ceil(2)).zip(["SCRAM-SHA-512", "PLAIN"])
    {
        let instance = group.serve_with("a", &settings(mechanism, "secret"));
        group.produce(part);
        group.is_settled(&instance).await;
        instance.stop();
    }
    assert_same(&group.documents(), &imported(&events));

    let refused =
        |settings: [(&str, &str); 6]| run(group.command("b").arg("check").envs(settings), 4).1;
    let told = refused(settings("PLAIN", "wrong"));
    assert!(
        told.contains("Invalid username or password") && told.contains("see kafka.username"),
        "{told}"
    );
    // The system knows no such authority.
    let mut strange = settings("PLAIN", "secret");
    strange[2].1 = "";
    let told = refused(strange);
    assert!(told.contains("kafka.ca"), "{told}");
}

/// Whatever an account may not do is named, one thing after the other, until it may do enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_told_which_right_it_lacks() {
    let (kafka, door, certificate) = Kafka::start_secure("rights");
    let group = Group::of_events(kafka, 4).await;
    let settings = [
        ("CALLSCOPE__KAFKA__BROKERS", &*door),
        ("CALLSCOPE__KAFKA__TLS", "true"),
        ("CALLSCOPE__KAFKA__CA", certificate.to_str().unwrap()),
        ("CALLSCOPE__KAFKA__USERNAME", "guest"),
        ("CALLSCOPE__KAFKA__PASSWORD", "secret"),
    ];
    let allow = |rights: &str| group.kafka.allow(rights);
    let refused = || group.refused("serve", &settings);
    let told = refused();
    assert!(told.contains("no topic events") && told.contains("Describe"), "{told}");

    allow("--operation Read --topic events");
    let check = |code: i32| run(group.command("check").arg("check").envs(settings), code).0;
    let told = check(3);
    for topic in ["g-state", "g-dead-letters", "g-digests"] {
        let begin = format!("kafka: topic {topic}: missing; cannot make topic {topic}: ");
        let line = told.lines().find(|line| line.starts_with(&begin));
        assert!(line.is_some_and(|line| line.contains("the account needs Create")), "{told}");
    }
    let told = refused();
    assert!(told.contains("cannot make topic g-state") && told.contains("yourself"), "{told}");

    // As it says, by somebody who may.
    for part in told.split('`').filter(|part| part.starts_with("kafka-topics.sh")) {
        group.kafka.make(part).await;
    }
    allow("--operation Read --topic g- --resource-pattern-type prefixed");
    let told = refused();
    assert!(told.contains("cannot make topic g-dead-letters"), "{told}");
    allow("--operation Create --topic g- --resource-pattern-type prefixed");
    for _ in 0..2 {
        // Asking makes none.
        let told = check(0);
        assert!(told.contains("topic g-state: there"), "{told}");
        assert!(told.contains("topic g-dead-letters: missing; `serve` makes it"), "{told}");
    }
    let told = refused();
    assert!(told.contains("topic g-state may not be written"), "{told}");
    assert!(told.contains("needs Read and Write on it"), "{told}");
    allow("--operation Write --topic g- --resource-pattern-type prefixed");
    let told = refused();
    assert!(told.contains("transactional ids that begin with \"g\""), "{told}");
    allow("--operation Write --transactional-id g --resource-pattern-type prefixed");
    let instance = group.serve_with("a", &settings);
    instance.wait_for("/readyz", "Read on the topics of kafka.topics and on the group g\"").await;
    let (_, told_by_check) = run(group.command("check").arg("check").envs(settings), 0);
    for told in [instance.told(), told_by_check] {
        for topics in ["g-state", "events"] {
            let is_told = |line: &str| line.contains("DescribeConfigs") && line.contains(topics);
            assert!(told.lines().any(is_told), "{told}");
        }
    }
    allow("--operation Read --group g --resource-pattern-type prefixed");
    let events = load(17, 600);
    instance.post(&events[..1]).await;
    instance.wait_for("/readyz", "the account needs Write on topic events").await;
    allow("--operation Write --topic events");
    group.produce(&events);
    group.has_folded(&events, &instance).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_go_on_ends_and_says_why() {
    let group = Group::start("ends", 4).await;
    // Two processes of one name.
    let same = [("CALLSCOPE__KAFKA__INSTANCE_ID", "same")];
    let first = group.serve_with("a", &same);
    first.holds().await;
    let second = group.serve_with("b", &same);
    let told = first.ended_with(3);
    assert!(told.contains("kafka.instance_id"), "{told}");
    // Whoever is left is ready, though no record comes.
    second.wait_for("/readyz", "\"ready\":true").await;
    group.produce(&load(13, 300));
    group.is_settled(&second).await;
    second.stop();

    // The state of a version to come: it is refused, and stays as it is.
    let state = group.kafka.last("g-state");
    for (partition, key, value) in &state {
        let newer = [&99_u32.to_le_bytes()[..], &value[4..]].concat();
        group.kafka.put("g-state", *partition, key, &newer);
    }
    let told = group.refused("serve", &[]);
    assert!(told.contains("has format 99") && told.contains("g-state"), "{told}");

    // The version that wrote it goes on where it stood.
    for (partition, key, value) in &state {
        group.kafka.put("g-state", *partition, key, value);
    }
    let again = group.serve("a");
    let events = load(13, 300);
    group.produce(&events);
    group.has_folded(&events, &again).await;
    again.stop();
}

//! What tests share: folding records in memory, and looking at the documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use callscope::config::Config;
use callscope::document::Document;
use callscope::enrich::place::GeoIp;
use callscope::lane::clock::Clock;
use callscope::lane::fold::{Folded, Folder, Times};
use callscope::sessions::{Keeping, Limits, Outcome, Sessions};
use callscope::simulate::rng::Rng;
use serde_json::Value;

/// Far enough in the future for any fixture.
pub const WALL: i64 = 4_000_000_000_000;

/// The default settings.
pub fn config() -> Config {
    Config::load(None, std::iter::empty()).unwrap().config
}

/// Any order is as likely as any other.
pub fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for index in (1..items.len()).rev() {
        items.swap(index, usize::try_from(rng.below(index as u64 + 1)).unwrap());
    }
}

/// The lines, some of them twice, in any order.
pub fn disturbed(lines: &[String], seed: u64) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let twice: Vec<String> = lines.iter().filter(|_| rng.below(2) == 0).cloned().collect();
    let mut all = [lines, &twice].concat();
    shuffle(&mut all, &mut rng);
    all
}

/// A store that follows the rules for ids and versions.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Store(pub BTreeMap<String, Stored>);

#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub version: Option<u64>,
    pub index_time: i64,
    pub json: Value,
}

/// How many members an object has, those of one name counted apart: parsing into a map would hide a second one, which
/// Elasticsearch refuses.
struct Names(usize);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Names, A::Error> {
                let mut count = 0;
                while map.next_entry::<String, serde::de::IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Names(count))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Store {
    pub fn put(&mut self, document: &Document) {
        let json: Value = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(json["elastic_type"], *document.elastic_type);
        let Names(names) = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(json.as_object().unwrap().len(), names, "a member twice: {json}");
        let stored = Stored { version: document.version, index_time: document.index_time, json };
        match self.0.get(&*document.id) {
            Some(_) if document.version.is_none() => {}
            Some(known) if known.version > document.version => {}
            _ => {
                self.0.insert(document.id.to_string(), stored);
            }
        }
    }

    /// Documents of one kind, in the order of their ids.
    pub fn of(&self, elastic_type: &str) -> Vec<&Value> {
        self.0
            .values()
            .map(|stored| &stored.json)
            .filter(|json| json["elastic_type"] == elastic_type)
            .collect()
    }

    /// The only document of its kind.
    pub fn one(&self, elastic_type: &str) -> &Value {
        let found = self.of(elastic_type);
        assert_eq!(found.len(), 1, "{elastic_type}: {found:#?}");
        found[0]
    }

    /// All summaries and what superseded one, without raw documents.
    pub fn summaries(&self) -> BTreeMap<&String, &Stored> {
        self.0.iter().filter(|(_, stored)| stored.version.is_some()).collect()
    }
}

/// A lane without inputs, sink and checkpoint file.
pub struct Bench {
    pub config: Config,
    pub folder: Folder,
    pub clock: Clock,
    pub store: Store,
    pub outcomes: Vec<Outcome>,
    pub dead: Vec<String>,
    /// Raw documents as they were written.
    pub raw: Vec<String>,
    saved: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let folder = Folder::new(&config, Arc::new(GeoIp::default()), Keeping::Lifetimes);
        Self {
            config,
            folder,
            clock: Clock::default(),
            store: Store::default(),
            outcomes: Vec::new(),
            dead: Vec::new(),
            raw: Vec::new(),
            saved: BTreeMap::new(),
        }
    }

    pub fn read(&mut self, record: &str) -> &mut Self {
        self.read_from("default", record.as_bytes())
    }

    pub fn read_from(&mut self, source: &str, record: &[u8]) -> &mut Self {
        let times = Times { lane: self.clock.now(), wall: WALL };
        match self.folder.fold(record, source, times, &mut self.clock, |_| {}).unwrap() {
            Folded::Event(outcome, document) => {
                self.outcomes.push(outcome);
                self.raw.push(String::from_utf8(document.json.to_vec()).unwrap());
                self.store.put(&document);
            }
            Folded::Skipped => {}
            Folded::Dead(reason) => self.dead.push(reason),
        }
        self
    }

    /// Ends a cycle: documents are stored, changes are saved.
    pub fn cycle(&mut self) -> &mut Self {
        self.write();
        for change in self.folder.sessions.changes().unwrap() {
            match change.value {
                Some(value) => self.saved.insert(change.key, value),
                None => self.saved.remove(&change.key),
            };
        }
        self
    }

    /// Stores the documents that are due.
    pub fn write(&mut self) {
        let mut documents = Vec::new();
        while self.folder.sessions.documents_of_one(&mut documents) {}
        documents.iter().for_each(|document| self.store.put(document));
    }

    /// Lets the lane's clock reach `clock`.
    pub fn expire(&mut self, clock: i64) -> &mut Self {
        loop {
            self.write();
            if !self.folder.sessions.expire(clock) {
                return self.cycle();
            }
        }
    }

    /// Ends the process and starts it again: what was not saved is gone.
    pub fn restart(&mut self) -> &mut Self {
        let limits = Limits::new(&self.config.sessions);
        let mut sessions = Sessions::new(limits, Keeping::Lifetimes);
        for (key, value) in &self.saved {
            sessions.restore_one(key, value).unwrap();
        }
        sessions.restored();
        self.folder = Folder::resume(&self.config, Arc::new(GeoIp::default()), sessions);
        self
    }

    /// Nothing more will come.
    pub fn finish(&mut self) -> &Store {
        self.folder.sessions.finish();
        self.cycle();
        &self.store
    }

    pub fn saved(&self) -> usize {
        self.saved.len()
    }
}

/// Folds `records` as one batch, and sees that the same comes of them with a restart after every record, with every record
/// twice, backwards, and shuffled.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a str>) -> Store {
    let records: Vec<&str> = records.into_iter().collect();
    let mut whole = Bench::new();
    let mut restarted = Bench::new();
    let mut twice = Bench::new();
    let mut backwards = Bench::new();
    let mut shuffled = Bench::new();
    for record in &records {
        whole.read(record);
        restarted.read(record).cycle().restart();
        twice.read(record).read(record);
    }
    for record in records.iter().rev() {
        backwards.read(record);
    }
    let mut rest = records.clone();
    let mut rng = Rng::new(records.len() as u64);
    while !rest.is_empty() {
        shuffled.read(rest.swap_remove(usize::try_from(rng.below(rest.len() as u64)).unwrap()));
    }
    let store = whole.finish().clone();
    assert_eq!(
        store.summaries(),
        restarted.finish().summaries(),
        "with a restart after every record"
    );
    assert_eq!(store.summaries(), twice.finish().summaries(), "with every record twice");
    assert_eq!(store.summaries(), backwards.finish().summaries(), "backwards");
    assert_eq!(store.summaries(), shuffled.finish().summaries(), "shuffled");
    store
}

/// Folds `records` as one batch.
pub fn fold_once<'a>(records: impl IntoIterator<Item = &'a str>) -> Store {
    let mut bench = Bench::new();
    for record in records {
        bench.read(record);
    }
    bench.finish().clone()
}

/// A file of `fixtures/`.
pub fn fixture(name: &str) -> String {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

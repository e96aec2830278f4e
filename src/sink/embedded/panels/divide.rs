//! To which parts of a split documents belong.

use foldhash::{HashMap, HashSet};
use tantivy::{DocId, SegmentReader};

use super::columns::{Columns, Test, tests};
use crate::panels::answer::{Key, View};
use crate::panels::model::Split;
use crate::panels::zone::Steps;

/// North and south of this there are no tiles.
const LATITUDE_MAX: f64 = 85.051_128_779_806_59;

/// A key within one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Short {
    /// A text, by its number in the column.
    Ordinal(u64),
    /// No value, where those are shown.
    Missing,
    Flag(bool),
    Time(i64),
    /// A number, by its bits.
    Number(u64),
    /// Before the first class.
    Least,
    Case(usize),
    Tile(u32, u32, u32),
}

/// A split in one segment.
pub(super) struct Divider {
    columns: Columns,
    how: How,
}

enum How {
    Time(Steps),
    Values {
        missing: Option<String>,
    },
    Classes(Vec<f64>),
    Steps(f64),
    Cases(Vec<(String, Vec<Test>)>),
    /// Of each text that is a place, by its number.
    Tiles(HashMap<u64, Option<Short>>),
}

impl Divider {
    pub(super) fn new(split: &Split, view: &View, reader: &SegmentReader) -> tantivy::Result<Self> {
        let columns = split.field().map(|field| Columns::new(reader, &field.value)).transpose()?;
        let columns = columns.unwrap_or_default();
        let how = match split {
            Split::Time(by) => How::Time(view.steps(by)),
            Split::Values(by) => How::Values { missing: by.missing.clone() },
            Split::Classes(by) => How::Classes(by.at.clone()),
            Split::Steps(by) => How::Steps(by.every),
            Split::Tiles(by) => {
                // Far fewer places are told than documents tell one.
                How::Tiles(columns.all_texts(|text| tile(&String::from_utf8_lossy(text), by.zoom)))
            }
            Split::Cases(by) => {
                let cases = by.cases.iter();
                let cases = cases.map(|case| Ok((case.label.clone(), tests(&case.when, reader)?)));
                How::Cases(cases.collect::<tantivy::Result<_>>()?)
            }
        };
        Ok(Self { columns, how })
    }

    /// The parts that a document belongs to, each once.
    pub(super) fn keys(&self, document: DocId, keys: &mut Vec<Short>) {
        let columns = &self.columns;
        match &self.how {
            How::Time(steps) => keys.extend(columns.numbers(document).map(|time| {
                #[expect(clippy::cast_possible_truncation, reason = "a time in milliseconds")]
                Short::Time(steps.begin(time as i64))
            })),
            How::Values { missing } => {
                keys.extend(columns.ordinals(document).map(Short::Ordinal));
                keys.extend(columns.flags(document).map(Short::Flag));
                let numbers = columns.numbers(document);
                keys.extend(numbers.map(|number| Short::Number(number.to_bits())));
                if keys.is_empty() && missing.is_some() {
                    keys.push(Short::Missing);
                }
            }
            How::Classes(at) => keys.extend(columns.numbers(document).map(|number| {
                let begun = at.iter().rev().find(|begin| **begin <= number);
                begun.map_or(Short::Least, |begin| Short::Number(begin.to_bits()))
            })),
            How::Steps(every) => keys.extend(
                columns
                    .numbers(document)
                    .map(|number| Short::Number(((number / every).floor() * every).to_bits())),
            ),
            How::Cases(cases) => {
                let met = cases
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, tests))| tests.iter().all(|test| test.is_met(document)));
                keys.extend(met.map(|(place, _)| Short::Case(place)));
            }
            How::Tiles(tiles) => {
                let ordinals = columns.ordinals(document);
                keys.extend(ordinals.filter_map(|ordinal| *tiles.get(&ordinal)?));
            }
        }
        // A document counts once in each part, however often it says so.
        if keys.len() > 1 {
            let mut seen = HashSet::default();
            keys.retain(|key| seen.insert(*key));
        }
    }

    /// Texts, by their numbers.
    pub(super) fn texts(&self, ordinals: Vec<u64>) -> HashMap<u64, String> {
        self.columns.texts(ordinals, |text| String::from_utf8_lossy(text).into_owned())
    }

    /// What a key is called in all segments; `texts` has those of all ordinals.
    pub(super) fn name(&self, key: Short, texts: &HashMap<u64, String>) -> Key {
        match (key, &self.how) {
            (Short::Ordinal(ordinal), _) => {
                Key::Text(texts.get(&ordinal).cloned().unwrap_or_default())
            }
            (Short::Missing, How::Values { missing }) => {
                Key::Text(missing.clone().unwrap_or_default())
            }
            (Short::Case(place), How::Cases(cases)) => {
                Key::Text(cases.get(place).map(|(label, _)| label.clone()).unwrap_or_default())
            }
            (Short::Flag(flag), _) => Key::Text(flag.to_string()),
            (Short::Time(time), _) => Key::Time(time),
            (Short::Number(bits), _) => Key::Number(Some(f64::from_bits(bits))),
            (Short::Tile(zoom, x, y), _) => Key::Tile(zoom, x, y),
            (Short::Least | Short::Missing | Short::Case(_), _) => Key::Number(None),
        }
    }
}

/// The tile that `latitude,longitude` is in, as the map's projection (Web Mercator) has it.
pub(super) fn tile(place: &str, zoom: u32) -> Option<Short> {
    let (latitude, longitude) = place.split_once(',')?;
    let latitude: f64 = latitude.trim().parse().ok()?;
    let longitude: f64 = longitude.trim().parse().ok()?;
    let latitude = latitude.clamp(-LATITUDE_MAX, LATITUDE_MAX).to_radians();
    let count = f64::from(1_u32 << zoom);
    let x = (longitude + 180.0) / 360.0 * count;
    let y = (1.0 - latitude.tan().asinh() / std::f64::consts::PI) / 2.0 * count;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2^zoom, which is checked"
    )]
    let number = |value: f64| value.clamp(0.0, count - 1.0) as u32;
    Some(Short::Tile(zoom, number(x), number(y)))
}

//! Charts: columns and what is drawn of them fit together, formulas are expanded as they read, fields hold what is asked of them.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::formula::{self, Part};
use super::{holds, holds_in, list, number, query, query_in, source_of, text};
use crate::document::fields::{Holds, Unit};
use crate::panels::source::Source;

/// Tells what is wrong with the chart of a panel.
pub(super) fn check(panel: &Json, at: &str, told: &mut Vec<String>) {
    let attributes = panel.pointer("/embeddableConfig/attributes").unwrap_or(&Json::Null);
    let layers = attributes.pointer("/state/datasourceStates/formBased/layers");
    let layers = layers.and_then(Json::as_object);
    let (Some(layers), Some((id, layer))) =
        (layers, layers.and_then(|layers| layers.iter().next()))
    else {
        told.push(format!("{at} reads no documents"));
        return;
    };
    let references = list(attributes, "/references").iter();
    let over = source_of(references, &format!("indexpattern-datasource-layer-{id}"));
    let columns = Columns { layer, at, over };
    if layers.len() > 1 {
        told.push(format!("{at} has more than one layer of documents"));
    }
    let own = text(attributes, "/state/query/query");
    query_in(over, own, at, told);
    if !own.starts_with(&format!("{} : ", over.exact(over.kind()))) {
        told.push(format!("{at} does not say which {} it looks at", over.kind()));
    }
    columns.order(told);
    for (id, column) in columns.all() {
        columns.column(id, column, told);
    }
    columns.drawn(attributes, id, told);
}

struct Columns<'l> {
    layer: &'l Json,
    at: &'l str,
    /// Whose documents it reads.
    over: Source,
}

impl<'l> Columns<'l> {
    fn all(&self) -> impl Iterator<Item = (&'l String, &'l Json)> {
        self.layer.get("columns").and_then(Json::as_object).into_iter().flatten()
    }

    fn find(&self, id: &str) -> Option<&'l Json> {
        self.layer.get("columns")?.get(id)
    }

    fn is_bucketed(column: &Json) -> bool {
        column.get("isBucketed") == Some(&Json::Bool(true))
    }

    /// A part of a formula is seen by nobody.
    fn is_part(&self, id: &str) -> bool {
        id.rsplit_once('X').is_some_and(|(of, place)| {
            place.parse::<u32>().is_ok()
                && self.find(of).is_some_and(|column| text(column, "/operationType") == "formula")
        })
    }

    fn order(&self, told: &mut Vec<String>) {
        let at = self.at;
        let order: Vec<&str> =
            list(self.layer, "/columnOrder").iter().filter_map(Json::as_str).collect();
        let ids: BTreeSet<&str> = self.all().map(|(id, _)| id.as_str()).collect();
        if order.len() != ids.len() || order.iter().copied().collect::<BTreeSet<_>>() != ids {
            told.push(format!("{at}: columnOrder {order:?} is not of the columns {ids:?}"));
        }
        let buckets: Vec<bool> =
            order.iter().filter_map(|id| self.find(id)).map(Self::is_bucketed).collect();
        if !buckets.is_sorted_by(|left, right| left >= right) {
            told.push(format!("{at}: a value stands before a split in {order:?}"));
        }
        if !buckets.contains(&false) {
            told.push(format!("{at} shows no value"));
        }
        let mut labels = BTreeSet::new();
        for (id, column) in self.all().filter(|(id, _)| !self.is_part(id)) {
            let label = text(column, "/label");
            if label.trim().is_empty() || !labels.insert(label) {
                told.push(format!("{at}: column {id} has no label of its own"));
            }
        }
    }

    fn column(&self, id: &str, column: &Json, told: &mut Vec<String>) {
        let at = format!("{}: column {id}", self.at);
        let operation = text(column, "/operationType");
        let is_split = ["date_histogram", "terms", "range", "filters"].contains(&operation);
        if is_split != Self::is_bucketed(column) {
            told.push(format!("{at} is a split, or it is none"));
        }
        if let Some(filter) = column.pointer("/filter/query").and_then(Json::as_str) {
            query_in(self.over, filter, &at, told);
        }
        let held = column
            .get("sourceField")
            .and_then(Json::as_str)
            .map(|field| (field, holds_in(self.over, field)));
        match held {
            Some(("___records___", _)) if operation == "count" => {}
            Some((_, Ok(holds))) if suits(operation, holds) => units(column, holds, &at, told),
            Some((field, Ok(holds))) => {
                told.push(format!("{at}: {operation} of {field}, which holds {holds:?}"))
            }
            Some((_, Err(problem))) => told.push(format!("{at}: {problem}")),
            None => {}
        }
        match operation {
            "terms" => self.terms(column, &at, told),
            "filters" => {
                for filter in list(column, "/params/filters") {
                    query_in(self.over, text(filter, "/input/query"), &at, told);
                }
            }
            "range" => classes(column, &at, told),
            "last_value" if text(column, "/params/sortField") != self.over.time() => {
                told.push(format!("{at} is sorted by no time"));
            }
            "formula" => self.formula(id, column, &at, told),
            "math" | "cumulative_sum" | "counter_rate" | "normalize_by_unit"
                if !self.is_part(id) =>
            {
                told.push(format!("{at} is part of no formula"));
            }
            _ => {}
        }
    }

    fn terms(&self, column: &Json, at: &str, told: &mut Vec<String>) {
        if !number(column, "/params/size").is_some_and(|size| (1.0..=1000.0).contains(&size)) {
            told.push(format!("{at} has a size that Lens does not take"));
        }
        let aggregation = column.pointer("/params/orderAgg");
        match column.pointer("/params/orderBy/columnId").and_then(Json::as_str) {
            Some(by) => {
                let is_value = |column: &Json| {
                    !Self::is_bucketed(column) && column.get("references").is_none()
                };
                if !self.find(by).is_some_and(is_value) || self.is_part(by) {
                    told.push(format!("{at} is ordered by {by:?}, which is no value"));
                }
            }
            None => match aggregation {
                Some(aggregation) => self.column("order", aggregation, told),
                None => told.push(format!("{at} does not say by what it is ordered")),
            },
        }
        let by = column.pointer("/params/orderBy/columnId").and_then(Json::as_str);
        let by = by.and_then(|by| self.find(by)).or(aggregation);
        let percent = by.and_then(|by| number(by, "/params/percentile"));
        if percent.is_some_and(|percent| percent.fract() != 0.0) {
            told.push(format!(
                "{at} is ordered by a percentile with a fraction, which Lens refuses"
            ));
        }
        let is_on = |pointer| column.pointer(pointer) == Some(&Json::Bool(true));
        if is_on("/params/missingBucket") && !is_on("/params/otherBucket") {
            told.push(format!(
                "{at} names those without a value, and Lens does so beside others only"
            ));
        }
    }

    /// The text alone says which columns there have to be.
    fn formula(&self, id: &str, column: &Json, at: &str, told: &mut Vec<String>) {
        let expected = match formula::expand(id, text(column, "/params/formula")) {
            Ok(parts) => parts,
            Err(problem) => return told.push(format!("{at}: {problem}")),
        };
        let last = expected.len().checked_sub(1).map(|last| format!("{id}X{last}"));
        let references: Vec<&str> =
            list(column, "/references").iter().filter_map(Json::as_str).collect();
        if references != last.as_deref().into_iter().collect::<Vec<_>>() {
            told.push(format!("{at} refers to {references:?} instead of {last:?}"));
        }
        let present = self
            .all()
            .filter(|(part, _)| part.strip_prefix(id).is_some_and(|rest| rest.starts_with('X')));
        if present.count() != expected.len() {
            told.push(format!("{at} has not {} parts", expected.len()));
        }
        for (place, expected) in expected.iter().enumerate() {
            let part = format!("{id}X{place}");
            let found = self.find(&part).map(found);
            if found.as_ref() != Some(expected) {
                let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
                told.push(format!("{at}: part {part} is {found} instead of {expected}"));
            }
        }
        if column.pointer("/params/isFormulaBroken") != Some(&Json::Bool(false)) {
            told.push(format!("{at} is called broken"));
        }
    }

    /// Whatever is drawn is a column, of the kind that is asked for, and every value is drawn.
    fn drawn(&self, attributes: &Json, layer: &str, told: &mut Vec<String>) {
        let at = self.at;
        let look = attributes.pointer("/state/visualization").unwrap_or(&Json::Null);
        let mut drawn = BTreeSet::new();
        for owner in std::iter::once(look).chain(list(look, "/layers")) {
            if text(owner, "/layerType") == "annotations" {
                annotations(owner, at, told);
                continue;
            }
            if owner.get("layerId").and_then(Json::as_str).is_some_and(|id| id != layer) {
                told.push(format!("{at} draws a layer that is not there"));
            }
            for (name, is_split) in ACCESSORS {
                let accessors = match owner.get(name) {
                    Some(Json::Array(several)) => several.iter().filter_map(id_in).collect(),
                    Some(one) => one.as_str().into_iter().collect::<Vec<_>>(),
                    None => Vec::new(),
                };
                for id in accessors {
                    // That one says how it is drawn, and draws nothing.
                    if name != "yConfig" {
                        drawn.insert(id);
                    }
                    let found = self.find(id).filter(|_| !self.is_part(id));
                    if !found.is_some_and(|column| {
                        is_split.is_none_or(|split| split == Self::is_bucketed(column))
                    }) {
                        told.push(format!("{at}: {name} is {id:?}, which is no such column"));
                    }
                }
            }
            let sorting = owner.pointer("/sorting/columnId").and_then(Json::as_str);
            if sorting.is_some_and(|id| self.find(id).is_none()) {
                told.push(format!("{at} is sorted by no column"));
            }
        }
        for (id, _) in self.all().filter(|(id, _)| !self.is_part(id)) {
            if !drawn.contains(id.as_str()) {
                told.push(format!("{at}: column {id} is not drawn"));
            }
        }
    }
}

/// Members that name columns; whether those are splits, if it matters.
const ACCESSORS: [(&str, Option<bool>); 11] = [
    ("xAccessor", Some(true)),
    ("yAccessor", Some(true)),
    ("splitAccessor", Some(true)),
    ("breakdownByAccessor", Some(true)),
    ("primaryGroups", Some(true)),
    ("accessors", Some(false)),
    ("metrics", Some(false)),
    ("metricAccessor", Some(false)),
    ("valueAccessor", Some(false)),
    ("yConfig", Some(false)),
    ("columns", None),
];

/// An accessor is an id, or an object that has one.
fn id_in(accessor: &Json) -> Option<&str> {
    accessor.as_str().or_else(|| {
        ["columnId", "forAccessor"].iter().find_map(|name| accessor.get(name)?.as_str())
    })
}

fn annotations(layer: &Json, at: &str, told: &mut Vec<String>) {
    for mark in list(layer, "/annotations") {
        query(text(mark, "/filter/query"), at, told);
        if !is_time(text(mark, "/timeField")) {
            told.push(format!("{at}: a mark has no time"));
        }
    }
}

/// What a column is, as a part of a formula.
fn found(column: &Json) -> Part {
    let owned = |pointer: &str| column.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
    let mut arguments = Vec::new();
    if let Some(percentile) = number(column, "/params/percentile") {
        arguments.push(("percentile".to_owned(), percentile.to_string()));
    }
    arguments.extend(owned("/params/unit").map(|unit| ("unit".to_owned(), unit)));
    let mut tree = column.pointer("/params/tinymathAst").cloned();
    if let Some(tree) = tree.as_mut().and_then(Json::as_object_mut) {
        // Where it stood in the text, which nobody computes with.
        tree.remove("location");
        tree.remove("text");
    }
    Part {
        operation: text(column, "/operationType").to_owned(),
        field: owned("/sourceField"),
        filter: owned("/filter/query"),
        arguments,
        references: list(column, "/references")
            .iter()
            .filter_map(Json::as_str)
            .map(str::to_owned)
            .collect(),
        tree,
    }
}

/// Classes begin where the one before ends, from nothing to without end.
fn classes(column: &Json, at: &str, told: &mut Vec<String>) {
    if text(column, "/params/type") != "range" {
        return;
    }
    let ranges = list(column, "/params/ranges");
    let follows = |(before, after): (&Json, &Json)| {
        number(before, "/to").is_some()
            && number(before, "/to").map(f64::to_bits) == number(after, "/from").map(f64::to_bits)
    };
    let is_whole = ranges.first().is_some_and(|range| number(range, "/from").is_none())
        && ranges.last().is_some_and(|range| number(range, "/to").is_none())
        && ranges.iter().zip(ranges.iter().skip(1)).all(follows);
    if !is_whole {
        told.push(format!("{at} has classes with gaps"));
    }
}

fn suits(operation: &str, holds: Holds) -> bool {
    let is_number = holds.is_number();
    match operation {
        "sum" | "average" | "percentile" | "range" => is_number,
        "min" | "max" => is_number || holds == Holds::Date,
        "date_histogram" => holds == Holds::Date,
        "terms" => matches!(holds, Holds::Text | Holds::Flag | Holds::Whole(_)),
        "unique_count" => matches!(holds, Holds::Text | Holds::Whole(_)),
        "last_value" => matches!(holds, Holds::Text | Holds::Flag | Holds::Date) || is_number,
        _ => false,
    }
}

fn is_time(field: &str) -> bool {
    matches!(holds(field), Ok(Holds::Date))
}

/// A value is written in the unit of its field.
fn units(column: &Json, holds: Holds, at: &str, told: &mut Vec<String>) {
    let operation = text(column, "/operationType");
    let keeps = ["sum", "average", "min", "max", "percentile", "last_value"].contains(&operation);
    let format = column.pointer("/params/format");
    let (Some(unit), true, Some(format), None) =
        (holds.unit(), keeps, format, column.get("timeScale"))
    else {
        return;
    };
    let (id, suffix) = (text(format, "/id"), text(format, "/params/suffix").trim());
    let is_right = match unit {
        Unit::Number => id == "number" && suffix.is_empty(),
        Unit::Share => id == "percent",
        Unit::Percent => id == "number" && suffix == "%",
        Unit::Seconds => id == "duration" && text(format, "/params/fromUnit") == "seconds",
        Unit::Milliseconds => id == "number" && suffix == "ms",
        Unit::Bytes => id == "bytes",
        Unit::BitsPerSecond => id == "bits" && suffix == "/s",
    };
    if !is_right {
        told.push(format!("{at} holds {unit:?} and is written as {format}"));
    }
}

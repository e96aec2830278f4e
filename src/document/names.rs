//! Where a passing field may stand, so that no index refuses the document for it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::event::names::Class;
use crate::event::{Field, FieldName};

/// Where a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where it stood.
    Indexed,
    /// Below `malformed`: the name is known and promises another shape.
    Malformed,
    /// Below `unindexed`: no index takes the name or the value.
    Unindexed,
}

/// Longest field name that is indexed, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Largest value without a shape of its own that is indexed, in bytes: an index holds no term above 32 766.
const NUMBER_BYTES_MAX: usize = 64;

/// Where `field` goes.
#[must_use]
pub fn place_of(field: &Field<'_>) -> Place {
    let json = &*field.json;
    let is_object = is_objects(json);
    match field.known.map(FieldName::class) {
        Some(Class::Scalar) if is_object || is_odd_number(json) => Place::Malformed,
        Some(Class::Object) if !fits(json, members_of(field.known)) => Place::Malformed,
        Some(Class::Scalar | Class::Object) => Place::Indexed,
        Some(Class::Own | Class::Added) => Place::Malformed,
        // Unknown objects could disagree with unknown texts of the same name, or hold names without end.
        None if is_object || is_odd_number(json) || !is_name(&field.name) => Place::Unindexed,
        None => Place::Indexed,
    }
}

/// What an index expects of a member.
#[derive(Clone, Copy)]
enum Shape {
    Scalar,
    Object(&'static [(&'static str, Shape)]),
}

/// Members of OpenVidu's objects that are searched: an index refuses the document where one has another shape.
fn members_of(name: Option<FieldName>) -> &'static [(&'static str, Shape)] {
    use Shape::{Object, Scalar};
    const NODES: Shape = Object(&[("total", Scalar)]);
    match name {
        Some(FieldName::Mem) => &[("used", Scalar), ("percentage", Scalar)],
        Some(FieldName::MediaNodes) => &[("launch", NODES), ("terminate", NODES)],
        Some(FieldName::System) => &[
            (
                "config",
                Object(&[
                    ("maxNodes", Scalar),
                    ("minNodes", Scalar),
                    ("maxAvgLoad", Scalar),
                    ("minAvgLoad", Scalar),
                ]),
            ),
            ("status", Object(&[("numNodes", Scalar), ("totalLoad", Scalar), ("avgLoad", Scalar)])),
        ],
        _ => &[],
    }
}

/// Whether `json` is an object whose members have the shapes that `members` name, as far as it has them.
fn fits(json: &str, members: &[(&str, Shape)]) -> bool {
    let Ok(object) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(json) else {
        return false;
    };
    members.iter().all(|(name, shape)| {
        let value = object.get(*name).map(|value| value.get());
        value.is_none_or(|json| match shape {
            Shape::Scalar => !is_objects(json),
            Shape::Object(members) => fits(json, members),
        })
    })
}

/// An object, or a list that may hold one.
fn is_objects(json: &str) -> bool {
    json.starts_with('{') || (json.starts_with('[') && json.contains('{'))
}

/// A number that some index cannot hold.
#[must_use]
pub fn is_odd_number(json: &str) -> bool {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number && (json.len() > NUMBER_BYTES_MAX || crate::event::number_of(json).is_none())
}

/// Dots make paths and control characters or blanks at the edges are refused by one index or another.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('_')
        && name.trim() == name
        && !name.contains(|character: char| {
            character == '.' || character == '*' || character.is_control()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_fields_are_moved_aside() {
        let cases = [
            ("reason", r#""disconnect""#, Place::Indexed),
            ("reason", r#"{"a":1}"#, Place::Malformed),
            ("reason", r#"[{"a":1}]"#, Place::Malformed),
            ("to", r#"["con_A","con_B"]"#, Place::Indexed),
            ("jitter", "1e400", Place::Malformed),
            ("net", r#"{"eth0":{"rxBytes":1}}"#, Place::Indexed),
            ("net", "7", Place::Malformed),
            ("mem", r#"{"used":1,"percentage":2.5,"new":{"a":1}}"#, Place::Indexed),
            ("mem", r#"{"used":{"a":1}}"#, Place::Malformed),
            ("mediaNodes", r#"{"launch":{"total":1,"newNodes":[{"id":"a"}]}}"#, Place::Indexed),
            ("mediaNodes", r#"{"launch":5}"#, Place::Malformed),
            ("system", r#"{"status":{"numNodes":1,"avgLoad":{"a":1}}}"#, Place::Malformed),
            ("client", r#""x""#, Place::Malformed),
            ("joinDelta", "5", Place::Malformed),
            ("net_total", "5", Place::Malformed),
            ("", r#""x""#, Place::Unindexed),
            ("a.b", r#""x""#, Place::Unindexed),
            ("newIn2030", r#""x""#, Place::Indexed),
            ("newIn2030", r#"{"a":1}"#, Place::Unindexed),
        ];
        for (name, json, place) in cases {
            let field = Field { name: name.into(), known: FieldName::of(name), json: json.into() };
            assert_eq!(place_of(&field), place, "{name}: {json}");
        }
    }
}

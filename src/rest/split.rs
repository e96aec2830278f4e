//! Taking an answer apart while it comes: one session at a time, however large the whole is.

use bytes::{Bytes, BytesMut};

/// Largest session, in bytes.
pub(super) const SESSION_BYTES_MAX: usize = 64 << 20;

/// Why an answer is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SplitError {
    /// It does not begin as an object of JSON does. What stands there may be a secret in a wrong place.
    #[error("the answer is no JSON object, it begins with {0:?}")]
    NotAnObject(char),
    /// It has no list of sessions.
    #[error("the answer has no list of sessions")]
    NoList,
    /// Not all sessions are there.
    #[error("the answer says that it shows {said} sessions, and shows {found}")]
    Missing {
        /// `numberOfElements`.
        said: u64,
        /// Objects of the list.
        found: u64,
    },
}

/// The list of sessions, and how many it has.
const LIST: &[u8] = b"content";
const COUNT: &[u8] = b"numberOfElements";

/// Finds the objects in the list of the answer: `{"numberOfElements":1,"content":[{…}]}`.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// Objects and lists that are open.
    depth: usize,
    /// The text that came last in the answer itself, as far as it can be a name here.
    text: Vec<u8>,
    /// Name of the member that it is in.
    member: Vec<u8>,
    /// What the answer says of how many sessions it shows.
    said: Option<u64>,
    found: u64,
    has_list: bool,
    /// Whether the open member of the answer is the list.
    in_list: bool,
    in_text: bool,
    is_escaped: bool,
    /// What has come of the object under way.
    object: BytesMut,
    /// Whether that is too large, so that the rest of it is passed over.
    is_too_large: bool,
    /// Objects that were too large.
    too_large: usize,
    /// Whether anything has come.
    has_begun: bool,
    is_complete: bool,
}

impl Splitter {
    /// Takes in what has come, and gives the objects that are whole by now.
    pub(super) fn push(&mut self, chunk: &Bytes) -> Result<Vec<Bytes>, SplitError> {
        let mut whole = Vec::new();
        // Where the part of the object begins that is in this chunk.
        let mut from = (self.depth >= 3).then_some(0);
        for (at, byte) in chunk.iter().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                if self.in_text && self.depth == 1 && self.text.len() <= COUNT.len() {
                    self.text.push(*byte);
                }
                continue;
            }
            match byte {
                b'"' => {
                    self.in_text = true;
                    self.text.clear();
                }
                b':' if self.depth == 1 => self.member = std::mem::take(&mut self.text),
                b',' if self.depth == 1 => self.member.clear(),
                b'0'..=b'9' if self.depth == 1 && self.member == COUNT => {
                    let said = self.said.unwrap_or(0).saturating_mul(10);
                    self.said = Some(said.saturating_add(u64::from(byte - b'0')));
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    match self.depth {
                        2 => {
                            self.in_list = *byte == b'[' && self.member == LIST;
                            self.has_list |= self.in_list;
                        }
                        3 if self.in_list && *byte == b'{' => from = Some(at),
                        _ => {}
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 2
                        && let Some(begin) = from.take()
                        && self.in_list
                    {
                        self.take(chunk.get(begin..=at).unwrap_or_default());
                        let object = self.object.split().freeze();
                        if !std::mem::take(&mut self.is_too_large) {
                            whole.push(object);
                        }
                        self.found += 1;
                    }
                    self.is_complete |= self.depth == 0;
                }
                byte if byte.is_ascii_whitespace() => continue,
                _ => {}
            }
            if !self.has_begun {
                self.has_begun = true;
                if *byte != b'{' {
                    return Err(SplitError::NotAnObject(char::from(*byte)));
                }
            }
        }
        if let Some(begin) = from.filter(|_| self.in_list) {
            self.take(chunk.get(begin..).unwrap_or_default());
        }
        Ok(whole)
    }

    /// Takes in more of the object under way.
    fn take(&mut self, more: &[u8]) {
        if self.is_too_large {
            return;
        }
        self.object.extend_from_slice(more);
        if self.object.len() > SESSION_BYTES_MAX {
            self.object = BytesMut::new();
            self.is_too_large = true;
            self.too_large += 1;
        }
    }

    /// Objects that were too large until now.
    pub(super) fn too_large(&self) -> usize {
        self.too_large
    }

    /// Whether the answer has come to its end.
    ///
    /// # Errors
    ///
    /// If it has, and does not show all sessions.
    pub(super) fn is_complete(&self) -> Result<bool, SplitError> {
        let found = self.found;
        match self.said {
            _ if !self.is_complete => Ok(false),
            _ if !self.has_list => Err(SplitError::NoList),
            Some(said) if said != found => Err(SplitError::Missing { said, found }),
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(text: &str, cuts: &[usize]) -> (Vec<Value>, bool) {
        let mut splitter = Splitter::default();
        let (mut found, mut from) = (Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([text.len()]);
        cuts.sort_unstable();
        for cut in cuts {
            let chunk = Bytes::copy_from_slice(&text.as_bytes()[from..cut]);
            found.extend(splitter.push(&chunk).unwrap());
            from = cut;
        }
        let found = found.iter().map(|json| serde_json::from_slice(json).unwrap());
        (found.collect(), splitter.is_complete().unwrap())
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\\\\"{}\\[\\]a,é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"{\\]]{1,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn each_object_of_the_list_is_found_whatever_the_cuts(
            objects in prop::collection::vec(prop::collection::btree_map("[a-z]{1,4}", any_json(), 0..4), 0..5),
            beside in any_json(),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let objects: Vec<Value> =
                objects.into_iter().map(|members| Value::Object(members.into_iter().collect())).collect();
            let text = json!({ "numberOfElements": objects.len(), "a": beside, "content": objects }).to_string();
            prop_assert_eq!(split(&text, &cuts), (objects.clone(), true));
            let cut: String = text.chars().take(text.chars().count() - 1).collect();
            prop_assert_eq!(split(&cut, &cuts), (objects, false));
        }
    }

    #[test]
    fn what_is_too_large_hides_nothing_behind_it() {
        let mut splitter = Splitter::default();
        let mut push =
            |text: &str| splitter.push(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        assert!(push(r#"{"numberOfElements":3,"content":[{"a":1},{"b":""#).len() == 1);
        let much = "x".repeat(1 << 20);
        (0..=SESSION_BYTES_MAX >> 20).for_each(|_| assert!(push(&much).is_empty()));
        assert_eq!(push(r#""},{"c":3}]}"#), [r#"{"c":3}"#]);
        assert_eq!((splitter.too_large(), splitter.is_complete()), (1, Ok(true)));
        assert!(splitter.object.is_empty());
    }

    #[test]
    fn what_is_no_answer_is_told_of() {
        let mut splitter = Splitter::default();
        let told = splitter.push(&Bytes::from_static(b"\n <!DOCTYPE html>")).unwrap_err();
        assert_eq!(told.to_string(), "the answer is no JSON object, it begins with '<'");
    }

    #[test]
    fn an_answer_without_all_sessions_is_none() {
        let ended = |text: &str| {
            let mut splitter = Splitter::default();
            splitter.push(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
            splitter.is_complete()
        };
        for text in [
            "{}",
            r#"{"timestamp":"x","status":500,"error":"Internal"}"#,
            r#"{"numberOfElements":1}"#,
            r#"{"numberOfElements":0,"content":null}"#,
            r#"{"content":{"content":[{}]}}"#,
            r#"{"contents":[{}],"x":"content"}"#,
        ] {
            assert_eq!(ended(text), Err(SplitError::NoList), "{text}");
        }
        let missing = |said, found| Err(SplitError::Missing { said, found });
        assert_eq!(ended(r#"{"numberOfElements":12,"content":[{}]}"#), missing(12, 1));
        assert_eq!(ended(r#"{"content":[null],"numberOfElements": 1 }"#), missing(1, 0));
        assert_eq!(ended(r#"{"content":[{}, {}], "numberOfElements":2}"#), Ok(true));
        assert_eq!(ended(r#"{"content":[]}"#), Ok(true));
        assert_eq!(ended(r#"{"numberOfElements":0,"content":[]"#), Ok(false));
    }
}

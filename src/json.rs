//! Writing JSON: documents are put together from pieces, most of which are JSON already.

use std::fmt::Write;

/// An object being written. Names of members are plain ones: letters, digits, `_`.
#[derive(Debug)]
pub struct Object {
    text: String,
    /// Length of what stands before the first member.
    head: usize,
}

impl Object {
    /// An object without members, with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut text = String::with_capacity(capacity);
        text.push('{');
        Self { text, head: 1 }
    }

    /// Members alone, without braces, in the room that `text` has; what it holds is dropped. See
    /// [`into_members`](Self::into_members).
    #[must_use]
    pub fn members_in(mut text: String) -> Self {
        text.clear();
        Self { text, head: 0 }
    }

    /// Adds a member whose value is JSON already.
    pub fn json(&mut self, name: &str, json: &str) {
        self.name(name);
        self.text.push_str(json);
    }

    /// Adds a member of any name whose value is JSON already.
    pub fn foreign(&mut self, name: &str, json: &str) {
        self.separate();
        quote(&mut self.text, name);
        self.text.push(':');
        self.text.push_str(json);
    }

    /// Adds a member whose value is a text.
    pub fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        quote(&mut self.text, text);
    }

    /// Adds a member whose value is a text, where there is one.
    pub fn text_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// Adds a member whose value is an integer.
    pub fn integer(&mut self, name: &str, integer: i64) {
        self.name(name);
        self.text.push_str(itoa::Buffer::new().format(integer));
    }

    /// Adds a member whose value is a count.
    pub fn count(&mut self, name: &str, count: usize) {
        self.name(name);
        self.text.push_str(itoa::Buffer::new().format(count));
    }

    /// Adds a member whose value is a number; whole ones without a decimal point, non-finite ones as 0.
    pub fn number(&mut self, name: &str, number: f64) {
        self.name(name);
        let number = if number.is_finite() { number } else { 0.0 };
        // Writing to a text does not fail.
        let _infallible = write!(self.text, "{number}");
    }

    /// Adds a member whose value is true or false.
    pub fn flag(&mut self, name: &str, flag: bool) {
        self.json(name, if flag { "true" } else { "false" });
    }

    /// Adds a range of integers, both ends included, as indices take it: `{"gte":1,"lte":2}`.
    pub fn range(&mut self, name: &str, from: i64, to: i64) {
        self.name(name);
        self.text.push_str("{\"gte\":");
        self.text.push_str(itoa::Buffer::new().format(from));
        self.text.push_str(",\"lte\":");
        self.text.push_str(itoa::Buffer::new().format(to));
        self.text.push('}');
    }

    /// Adds members that are written already, `"a":1,"b":2`; none if empty.
    pub fn members(&mut self, members: &str) {
        if !members.is_empty() {
            self.separate();
            self.text.push_str(members);
        }
    }

    /// Adds an array of texts.
    pub fn texts<'a>(&mut self, name: &str, texts: impl IntoIterator<Item = &'a str>) {
        self.name(name);
        self.text.push('[');
        for (index, text) in texts.into_iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            quote(&mut self.text, text);
        }
        self.text.push(']');
    }

    /// Adds `{"numberOfElements":n,"content":[…]}`, OpenVidu's form of a list.
    pub fn container<'a>(&mut self, name: &str, contents: impl ExactSizeIterator<Item = &'a str>) {
        self.name(name);
        let _infallible =
            write!(self.text, "{{\"numberOfElements\":{},\"content\":[", contents.len());
        for (index, json) in contents.enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.text.push_str(json);
        }
        self.text.push_str("]}");
    }

    /// The object.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// What was begun with [`members_in`](Self::members_in), as [`members`](Self::members) takes it.
    #[must_use]
    pub fn into_members(self) -> String {
        debug_assert_eq!(self.head, 0, "begun as an object");
        self.text
    }

    fn separate(&mut self) {
        if self.text.len() > self.head {
            self.text.push(',');
        }
    }

    fn name(&mut self, name: &str) {
        debug_assert!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@'),
            "{name}"
        );
        self.separate();
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }
}

/// Appends `text` as a JSON string.
pub fn quote(json: &mut String, text: &str) {
    json.push('"');
    let mut rest = text;
    while let Some(at) = escaped_at(rest.as_bytes()) {
        let (plain, tail) = rest.split_at(at);
        json.push_str(plain);
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => json.push_str("\\\""),
            Some('\\') => json.push_str("\\\\"),
            Some('\n') => json.push_str("\\n"),
            Some('\r') => json.push_str("\\r"),
            Some('\t') => json.push_str("\\t"),
            Some(control) => {
                // Writing to a text does not fail.
                let _infallible = write!(json, "\\u{:04x}", u32::from(control));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    json.push_str(rest);
    json.push('"');
}

/// Where the first byte stands that JSON escapes. Sixteen bytes are looked at together: hardly any text has one.
fn escaped_at(bytes: &[u8]) -> Option<usize> {
    let is_escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut done = 0;
    for chunk in bytes.chunks(16) {
        if chunk.iter().fold(false, |found, byte| found | is_escaped(*byte)) {
            return chunk.iter().position(|byte| is_escaped(*byte)).map(|at| done + at);
        }
        done += chunk.len();
    }
    None
}

/// The longest start of `text` within `bytes_max` that ends between characters.
#[must_use]
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(name in ".*", text in any::<String>(), integer: i64, eighths: i32) {
            let mut object = Object::with_capacity(0);
            object.text("a", &text);
            object.integer("b", integer);
            let number = f64::from(eighths) / 8.0;
            object.number("c", number);
            object.foreign(&format!("x{name}"), "7");
            let read: serde_json::Value = serde_json::from_str(&object.finish()).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
            prop_assert_eq!(read["b"].as_i64(), Some(integer));
            prop_assert_eq!(read["c"].as_f64(), Some(number));
            prop_assert_eq!(read[format!("x{name}")].as_i64(), Some(7));
            let mut members = Object::members_in("left over".to_owned());
            members.text("a", &text);
            members.range("b", integer, integer);
            let members: serde_json::Value = serde_json::from_str(&format!("{{{}}}", members.into_members())).unwrap();
            prop_assert_eq!(&members["a"], &read["a"]);
            prop_assert_eq!(&members["b"]["gte"], &read["b"]);
        }

        #[test]
        fn prefix_ends_between_characters(text in any::<String>(), bytes_max in 0usize..64) {
            let short = prefix(&text, bytes_max);
            prop_assert!(short.len() <= bytes_max && text.starts_with(short));
            prop_assert!(bytes_max < short.len() + 4 || short == text);
        }
    }
}

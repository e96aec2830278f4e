//! The client behind a platform text.
//!
//! OpenVidu's browser library takes the text from platform.js: `NAME VERSION[ on PRODUCT][ (like LAYOUT)] on OS` with an
//! optional architecture, such as `Chrome 88.0.4324.182 on Linux 64-bit` or `Chrome Mobile 90.0 on Samsung Galaxy (Android 11)`.
//! Mobile libraries send `Android` or `iOS` with a version, IP cameras `IPCAM`.

use crate::json::Object;

/// Browser, system and device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client<'a> {
    /// Name of the browser or of the application; `unknown` if there is none.
    pub browser: &'a str,
    /// Its major version.
    pub version: Option<&'a str>,
    /// Windows, macOS, Linux, Android, iOS, iPadOS, ChromeOS or other.
    pub os: &'static str,
    /// desktop, mobile, tablet, ipcam or unknown.
    pub device: &'static str,
}

/// Words that tell the system, in the order in which they are looked for: `like Mac OS X` is no Mac.
const SYSTEMS: &[(&str, &str)] = &[
    ("ipad", "iPadOS"),
    ("ipados", "iPadOS"),
    ("iphone", "iOS"),
    ("ipod", "iOS"),
    ("ios", "iOS"),
    ("android", "Android"),
    ("windows phone", "Windows"),
    ("windows", "Windows"),
    ("chrome os", "ChromeOS"),
    ("cros", "ChromeOS"),
    ("os x", "macOS"),
    ("macos", "macOS"),
    ("mac os", "macOS"),
    ("linux", "Linux"),
    ("ubuntu", "Linux"),
    ("debian", "Linux"),
    ("fedora", "Linux"),
    ("red hat", "Linux"),
    ("suse", "Linux"),
    ("bsd", "other"),
];

/// Reads a platform text; any text gives some client.
#[must_use]
pub fn parse(platform: &str) -> Client<'_> {
    let platform = platform.trim();
    if platform == "IPCAM" {
        return Client { browser: "IPCAM", version: None, os: "other", device: "ipcam" };
    }
    let (name, rest) = platform.split_once(" on ").unwrap_or((platform, platform));
    let (browser, version) = name_and_version(name);
    let lower = rest.to_lowercase();
    let os = SYSTEMS.iter().find(|(word, _)| has_word(&lower, word)).map_or("other", |(_, os)| os);
    Client { browser, version, os, device: device(&platform.to_lowercase(), os) }
}

/// `Chrome Mobile 90.0.1` is `Chrome Mobile`, `90`.
fn name_and_version(name: &str) -> (&str, Option<&str>) {
    let is_version = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let mut end = 0;
    for word in name.split(' ') {
        if is_version(word) {
            let major = word.split('.').next().unwrap_or(word);
            let major =
                if major.bytes().all(|byte| byte.is_ascii_digit()) { Some(major) } else { None };
            let name = name.get(..end).unwrap_or("").trim();
            return (if name.is_empty() { "unknown" } else { name }, major);
        }
        end += word.len() + 1;
    }
    (if name.is_empty() { "unknown" } else { name }, None)
}

fn device(platform: &str, os: &str) -> &'static str {
    let tablet = os == "iPadOS" || platform.contains("tablet") || platform.contains("kindle");
    match os {
        _ if tablet => "tablet",
        "iOS" | "Android" => "mobile",
        _ if platform.contains("mobile") || platform.contains("windows phone") => "mobile",
        "Windows" | "macOS" | "Linux" | "ChromeOS" => "desktop",
        _ => "unknown",
    }
}

/// Whether `word` stands in `text` between characters that are no letters.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(char::is_alphabetic) && !after.is_some_and(char::is_alphabetic)
    })
}

impl Client<'_> {
    /// The object `client` of documents.
    #[must_use]
    pub fn json(&self) -> String {
        let mut json = Object::with_capacity(80);
        json.text("browser", self.browser);
        json.text_if("version", self.version);
        json.text("os", self.os);
        json.text("device", self.device);
        json.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn platform_texts_tell_the_client() {
        let cases = [
            ("Chrome 88.0.4324.182 on Linux 64-bit", "Chrome", Some("88"), "Linux", "desktop"),
            ("Chrome 129.0.0.0 on Windows 10 64-bit", "Chrome", Some("129"), "Windows", "desktop"),
            ("Firefox 130.0 on OS X 10.15", "Firefox", Some("130"), "macOS", "desktop"),
            (
                "Microsoft Edge 128.0 on Windows 10 64-bit",
                "Microsoft Edge",
                Some("128"),
                "Windows",
                "desktop",
            ),
            ("Safari 17.5 on Apple iPhone (iOS 17.5)", "Safari", Some("17"), "iOS", "mobile"),
            ("Safari 14.0 on Apple iPad (iOS 14.0)", "Safari", Some("14"), "iPadOS", "tablet"),
            (
                "Chrome Mobile 90.0.4430 on Samsung Galaxy S10 (Android 11)",
                "Chrome Mobile",
                Some("90"),
                "Android",
                "mobile",
            ),
            (
                "Samsung Internet 14.0 on Android 11",
                "Samsung Internet",
                Some("14"),
                "Android",
                "mobile",
            ),
            ("Chrome 90.0 on Chrome OS 13816", "Chrome", Some("90"), "ChromeOS", "desktop"),
            ("Android 31", "Android", Some("31"), "Android", "mobile"),
            ("IPCAM", "IPCAM", None, "other", "ipcam"),
            ("", "unknown", None, "other", "unknown"),
        ];
        for (platform, browser, version, os, device) in cases {
            assert_eq!(parse(platform), Client { browser, version, os, device }, "{platform}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_client(platform in ".*") {
            let client = parse(&platform);
            prop_assert!(!client.browser.is_empty());
            let _json: serde_json::Value = serde_json::from_str(&client.json()).unwrap();
        }
    }
}

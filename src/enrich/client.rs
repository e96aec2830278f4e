//! Clients: what the `platform` text of a participant tells about browser, system and device.
//!
//! The text is the `description` that platform.js makes in the browser, or what another client library says of itself:
//!
//! ```text
//! NAME [VERSION] [32-bit] [(CONTEXT; …)] on OS
//! NAME [VERSION] [32-bit] [(CONTEXT; …)] on [MAKER ]PRODUCT [(OS)]
//! Android 30        the Android SDK: its API level, no browser
//! iOS               the iOS SDK
//! IPCAM             an IP camera
//! unknown           OpenVidu, when the client said nothing
//! ```
//!
//! OS is a family, a version and `64-bit`, the last two optional. The description leaves out an OS without a version after a
//! product, so the product has to tell then. Limits of the text: an iPad that asks for desktop sites says it is a Mac; the
//! reduced user agents of Chrome say `Android 10; K` for every device.
//!
//! [`parse`] takes any text, fails on none and borrows what it can.

use serde::{Deserialize, Serialize};

/// Longest browser or system name taken over; more is not a name.
const NAME_BYTES_MAX: usize = 48;

/// What a client is. What the text does not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Client<'a> {
    /// `Chrome`, `Firefox`, `Safari`, `Microsoft Edge`, …, `IPCAM`. Without the ` Mobile` that the device tells.
    pub browser: Option<&'a str>,
    /// The major version of the browser, digits only.
    pub version: Option<&'a str>,
    /// `Windows`, `macOS`, `Linux`, `Android`, `iOS`, `iPadOS`, `ChromeOS`, or another family without its version.
    pub os: Option<&'a str>,
    /// The kind of device.
    pub device: Device,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// With a keyboard.
    Desktop,
    /// A telephone.
    Mobile,
    /// A large telephone.
    Tablet,
    /// An IP camera that the server itself connected.
    Ipcam,
    /// None of these, or not told.
    #[default]
    Unknown,
}

impl Device {
    /// The word written to documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Ipcam => "ipcam",
            Self::Unknown => "unknown",
        }
    }
}

/// What `platform` tells.
#[must_use]
pub fn parse(platform: &str) -> Client<'_> {
    let text = platform.trim();
    match text {
        "" | "unknown" | "null" | "undefined" => return Client::default(),
        "IPCAM" => {
            return Client { browser: Some(text), device: Device::Ipcam, ..Client::default() };
        }
        _ => {}
    }
    if let Some(client) = user_agent(text).or_else(|| sdk(text)) {
        return client;
    }
    let (name_and_version, host) = split_host(text);
    let (name, version) = split_version(name_and_version);
    let (product, os_text) = split_os(host);
    let os = os_text.and_then(os_family).or_else(|| product.and_then(product_os));
    let os = if product.is_some_and(|product| product.contains("iPad")) && os == Some("iOS") {
        Some("iPadOS")
    } else {
        os
    };
    let browser = name.strip_suffix(" Mobile").unwrap_or(name);
    Client {
        browser: Some(browser)
            .filter(|browser| !browser.is_empty() && browser.len() <= NAME_BYTES_MAX),
        version,
        os,
        device: device(name, product, os),
    }
}

/// A client library that says its system only: `Android 30`, `iOS`, `iOS 14.2`.
fn sdk(text: &str) -> Option<Client<'_>> {
    let (family, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_version = rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let os = match family.to_ascii_lowercase().as_str() {
        "android" if is_version => "Android",
        "ios" if is_version => "iOS",
        _ => return None,
    };
    Some(Client { os: Some(os), device: Device::Mobile, ..Client::default() })
}

/// A whole user agent: what the description is where nothing in it was recognised. Only the system is taken from it.
fn user_agent(text: &str) -> Option<Client<'_>> {
    if !text.starts_with("Mozilla/") {
        return None;
    }
    let os = [
        ("Android", "Android"),
        ("iPad", "iPadOS"),
        ("iPhone", "iOS"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Macintosh", "macOS"),
        ("Linux", "Linux"),
    ]
    .into_iter()
    .find_map(|(word, os)| text.contains(word).then_some(os));
    // The one that a user agent tells better than its system.
    let device = if os == Some("Android") && !text.contains("Mobi") {
        Device::Tablet
    } else {
        device("", None, os)
    };
    Some(Client { os, device, ..Client::default() })
}

/// Name with version, and what stands after ` on `. The parenthesis between them, if any, is dropped.
fn split_host(text: &str) -> (&str, Option<&str>) {
    let on = text.find(" on ");
    let context = text.find(" (").filter(|context| on.is_none_or(|on| *context < on));
    if let Some(context) = context {
        let (head, rest) = text.split_at(context);
        let host = rest.split_once(") on ").map(|(_, host)| host);
        return (head.trim(), host.map(str::trim));
    }
    match text.split_once(" on ") {
        Some((head, host)) => (head.trim(), Some(host.trim())),
        None => (text.strip_prefix("on ").map_or(text, |_| ""), text.strip_prefix("on ")),
    }
}

/// `Firefox for iOS 4.0 32-bit` → `Firefox for iOS`, `4`.
fn split_version(text: &str) -> (&str, Option<&str>) {
    let text = text.strip_suffix("32-bit").unwrap_or(text).trim_end();
    let Some((name, version)) = text.rsplit_once(' ') else { return (text, None) };
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    match version.get(..digits) {
        // No browser has a version of seven digits.
        Some(major) if (1..7).contains(&digits) => (name.trim_end(), Some(major)),
        _ => (text, None),
    }
}

/// `Moto G (5) Plus (Android 8.1.0)` → `Moto G (5) Plus`, `Android 8.1.0`; `Windows 10 64-bit` → none, all of it.
fn split_os(host: Option<&str>) -> (Option<&str>, Option<&str>) {
    let Some(host) = host else { return (None, None) };
    if let Some((product, os)) = host.strip_suffix(')').and_then(|host| host.rsplit_once(" (")) {
        return (Some(product), Some(os));
    }
    if is_product(host) || os_family(host).is_none() {
        (Some(host), None)
    } else {
        (None, Some(host))
    }
}

/// Families whose name the text begins with, and what we call them.
const FAMILIES: &[(&str, &str)] = &[
    ("Windows Phone", "Windows Phone"),
    ("Windows", "Windows"),
    ("OS X", "macOS"),
    ("macOS", "macOS"),
    ("Mac OS", "macOS"),
    ("iPadOS", "iPadOS"),
    ("iOS", "iOS"),
    ("Android", "Android"),
    ("Chrome OS", "ChromeOS"),
    ("Linux", "Linux"),
    ("Ubuntu", "Linux"),
    ("Kubuntu", "Linux"),
    ("Xubuntu", "Linux"),
    ("Debian", "Linux"),
    ("Fedora", "Linux"),
    ("CentOS", "Linux"),
    ("Red Hat", "Linux"),
    ("SuSE", "Linux"),
    ("Gentoo", "Linux"),
];

/// The family of a system: known ones under one name each, others as they are, without version and word size.
fn os_family(text: &str) -> Option<&str> {
    if let Some((_, family)) = FAMILIES.iter().find(|(prefix, _)| text.starts_with(prefix)) {
        return Some(family);
    }
    let text = text.strip_suffix(" 64-bit").unwrap_or(text);
    let end = text
        .match_indices(' ')
        .map(|(at, _)| at)
        .find(|at| {
            text.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .unwrap_or(text.len());
    text.get(..end).filter(|family| !family.is_empty() && family.len() <= NAME_BYTES_MAX)
}

/// Words in a product's name that tell its kind.
const TABLETS: &[&str] = &[
    "iPad",
    "Tablet",
    "Kindle",
    "Nexus 7",
    "Nexus 9",
    "Nexus 10",
    "Galaxy Tab",
    "SM-T",
    "SM-X",
    "Xoom",
    "PlayBook",
    "TouchPad",
    "Transformer",
    "Nook",
];
const PHONES: &[&str] =
    &["iPhone", "iPod", "Mobile", "BlackBerry", "Lumia", "Nexus", "Galaxy S", "Simulator"];
const OTHERS: &[&str] = &["TV", "PlayStation", "Xbox", "Wii"];

fn is_product(host: &str) -> bool {
    [TABLETS, PHONES, OTHERS].iter().any(|words| contains_any(host, words))
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// The system of a product whose description leaves it out.
fn product_os(product: &str) -> Option<&'static str> {
    if product.contains("iPad") {
        Some("iPadOS")
    } else if contains_any(product, &["iPhone", "iPod"]) {
        Some("iOS")
    } else if contains_any(product, &["Kindle", "Nexus", "Galaxy", "SM-", "Xoom", "Nook"]) {
        Some("Android")
    } else {
        None
    }
}

fn device(name: &str, product: Option<&str>, os: Option<&str>) -> Device {
    let product = product.unwrap_or("");
    if contains_any(product, OTHERS) {
        return Device::Unknown;
    }
    if contains_any(product, TABLETS) {
        return Device::Tablet;
    }
    if contains_any(product, PHONES) {
        return Device::Mobile;
    }
    match os {
        Some("iPadOS") => Device::Tablet,
        // platform.js adds " Mobile" to these two wherever the user agent says it is a phone.
        Some("Android") if matches!(name, "Chrome" | "Opera") => Device::Tablet,
        Some("Android" | "iOS" | "Windows Phone" | "KaiOS" | "Firefox OS" | "BlackBerry") => {
            Device::Mobile
        }
        _ if name.ends_with(" Mobile") => Device::Mobile,
        Some(
            "Windows" | "macOS" | "Linux" | "ChromeOS" | "FreeBSD" | "OpenBSD" | "DragonFly BSD"
            | "Haiku",
        ) => Device::Desktop,
        _ if name == "Electron" => Device::Desktop,
        // A product that platform.js does not know came with the name of its maker: a phone, almost always.
        None if !product.is_empty() => Device::Mobile,
        None | Some(_) => Device::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// platform | browser | version | os | device
    const DESCRIPTIONS: &str = "
        Chrome 85.0.4183.121 on Linux 64-bit | Chrome | 85 | Linux | desktop
        Chrome 143.0.0.0 on Linux | Chrome | 143 | Linux | desktop
        Chrome 69.0.3497.81 on OS X 10.13.6 64-bit | Chrome | 69 | macOS | desktop
        Chrome 83.0.4103.61 on Windows 10 64-bit | Chrome | 83 | Windows | desktop
        Chrome 54.0.2840.71 32-bit on Windows 10 64-bit | Chrome | 54 | Windows | desktop
        Chrome 63.0.3239.132 (headless) on Linux 64-bit | Chrome | 63 | Linux | desktop
        Chrome 43.0.2357.46 on Chrome OS 64-bit | Chrome | 43 | ChromeOS | desktop
        Chromium 66.0.3359.181 on Ubuntu 64-bit | Chromium | 66 | Linux | desktop
        Chrome Mobile 70.0.3538.80 on Moto G (5) Plus (Android 8.1.0) | Chrome | 70 | Android | mobile
        Chrome Mobile 124.0.0.0 on K (Android 10) | Chrome | 124 | Android | mobile
        Chrome 124.0.0.0 on K (Android 10) | Chrome | 124 | Android | tablet
        Chrome Mobile 27.0.1453.90 on Samsung Galaxy S2 (Android 4.0.4) | Chrome | 27 | Android | mobile
        Chrome 31.0.1650.59 on Google Nexus 7 (Android 4.4) | Chrome | 31 | Android | tablet
        Chrome Mobile 19.0.1084.60 (like Safari 5.x) on Apple iPhone (iOS 5.1.1) | Chrome | 19 | iOS | mobile
        Firefox 77.0 on Windows 10 64-bit | Firefox | 77 | Windows | desktop
        Firefox 4.0β8 32-bit on Windows Server 2008 R2 / 7 64-bit | Firefox | 4 | Windows | desktop
        Firefox Mobile 49.0 on Mobile (Android 4.4.2) | Firefox | 49 | Android | mobile
        Firefox Mobile 68.0 on Tablet (Android 9) | Firefox | 68 | Android | tablet
        Firefox Mobile 10.0.5 on Android | Firefox | 10 | Android | mobile
        Firefox Mobile 48.0 on Mobile (KaiOS 2.0) | Firefox | 48 | KaiOS | mobile
        Firefox for iOS 4.0 (like Safari 8.x) on Apple iPad (iOS 8.3) | Firefox for iOS | 4 | iPadOS | tablet
        Firefox 29.0 on OpenBSD 64-bit | Firefox | 29 | OpenBSD | desktop
        Safari 14.0 on Apple iPhone (iOS 14.0) | Safari | 14 | iOS | mobile
        Safari 14.0 on Apple iPad (iOS 14.0) | Safari | 14 | iPadOS | tablet
        Safari 4.x on Apple iPhone Simulator (iOS 4.0) | Safari | 4 | iOS | mobile
        Safari 14.0.3 on OS X 10.15.6 | Safari | 14 | macOS | desktop
        Microsoft Edge 99.0.1150.30 on Windows 10 64-bit | Microsoft Edge | 99 | Windows | desktop
        Microsoft Edge 44.11.15 on SM-G960F (Android 10) | Microsoft Edge | 44 | Android | mobile
        Electron 1.4.5 (Chromium 53.0.2785.113; Node 6.5.0) on Windows 10 64-bit | Electron | 1 | Windows | desktop
        Opera 62.0.3331.18 (like Chrome 75.0.3770.80) on OS X 10.14.5 | Opera | 62 | macOS | desktop
        Opera Mobile 52.3.2517 (like Chrome 74.0) on SM-J600 (Android 9) | Opera | 52 | Android | mobile
        Samsung Internet 4.0 (like Chrome 44.0.2403.133) on Samsung Galaxy S7 Edge (Android 6.0) | Samsung Internet | 4 | Android | mobile
        Samsung Internet 11.1 (like Chrome 75.0) on Samsung SM-T510 (Android 10) | Samsung Internet | 11 | Android | tablet
        Android Browser 4.0 (like Chrome 33.0.0.0) on Huawei H891L (Android 4.4.4) | Android Browser | 4 | Android | mobile
        Silk 1.1.0 on Amazon Kindle Fire (Android 2.3.4) | Silk | 1 | Android | tablet
        IE 11.0 on Windows 8.1 | IE | 11 | Windows | desktop
        IE Mobile 10.0 on Nokia Lumia 920 (Windows Phone 8.0) | IE | 10 | Windows Phone | mobile
        Chrome 5.0.375.127 on Google TV (Linux i686) | Chrome | 5 | Linux | unknown
    ";

    #[test]
    fn descriptions_of_browsers_are_understood() {
        for line in DESCRIPTIONS.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let columns: Vec<&str> = line.split(" | ").collect();
            let client = parse(columns[0]);
            let found = [
                client.browser.unwrap(),
                client.version.unwrap(),
                client.os.unwrap(),
                client.device.as_str(),
            ];
            assert_eq!(found, columns[1..], "{line}");
        }
    }

    #[test]
    fn what_is_left_out_is_absent() {
        let nothing = Client::default();
        for platform in ["", "  ", "unknown", "null"] {
            assert_eq!(parse(platform), nothing, "{platform}");
        }
        let client = parse("Silk 1.0.13.81 (accelerated; desktop mode) on Amazon Kindle Fire");
        assert_eq!((client.os, client.device), (Some("Android"), Device::Tablet));
        let client = parse("Rekonq (like Safari 4+) on Linux i686");
        assert_eq!(
            (client.browser, client.version, client.os),
            (Some("Rekonq"), None, Some("Linux"))
        );
        let client = parse("Avant Browser 32-bit on Windows 7 64-bit");
        assert_eq!((client.browser, client.version), (Some("Avant Browser"), None));
        let client = parse("Chrome 90.0");
        assert_eq!((client.browser, client.version, client.os), (Some("Chrome"), Some("90"), None));
        assert_eq!(client.device, Device::Unknown);
        let client =
            parse("Samsung Internet 1.0 (like Safari 7.x) on Samsung SM-Z130H (Tizen 2.3)");
        assert_eq!((client.browser, client.os), (Some("Samsung Internet"), Some("Tizen")));
        let client = parse("Chrome 12345678 on Linux");
        assert_eq!((client.browser, client.version), (Some("Chrome 12345678"), None));
        assert_eq!(parse("on Windows 10").browser, None);
        assert_eq!(parse("on Windows 10").os, Some("Windows"));
    }

    #[test]
    fn cameras_and_client_libraries_are_told_apart_from_browsers() {
        let camera = parse("IPCAM");
        assert_eq!((camera.browser, camera.device), (Some("IPCAM"), Device::Ipcam));
        assert_eq!((camera.version, camera.os), (None, None));
        for (platform, os) in
            [("Android 30", "Android"), ("iOS", "iOS"), ("ios 14.2", "iOS"), ("Android", "Android")]
        {
            let client = parse(platform);
            assert_eq!((client.browser, client.version), (None, None), "{platform}");
            assert_eq!((client.os, client.device), (Some(os), Device::Mobile), "{platform}");
        }
    }

    #[test]
    fn a_whole_user_agent_tells_its_system() {
        let client = parse("Mozilla/5.0 (Linux; Android 9; SM-T830) Odd/1.0");
        assert_eq!(
            (client.browser, client.os, client.device),
            (None, Some("Android"), Device::Tablet)
        );
        let client = parse("Mozilla/5.0 (X11; CrOS x86_64) Odd/1.0");
        assert_eq!((client.os, client.device), (Some("ChromeOS"), Device::Desktop));
    }

    #[test]
    fn a_text_that_is_no_name_is_not_taken_over() {
        let long = "x".repeat(5_000);
        assert_eq!(parse(&long), Client::default());
        let platform = format!("Chrome 1 on {long}");
        let client = parse(&platform);
        assert_eq!((client.browser, client.os), (Some("Chrome"), None));
    }

    proptest! {
        #[test]
        fn any_text_is_some_client(platform in "\\PC{0,120}") {
            let client = parse(&platform);
            prop_assert!(client.browser.is_none_or(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX));
            prop_assert!(client.os.is_none_or(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX));
            prop_assert!(client.version.is_none_or(|version| version.parse::<u32>().is_ok()));
        }

        #[test]
        fn parts_of_descriptions_in_any_order_are_some_client(
            parts in prop::collection::vec(prop::sample::select(vec![
                "Chrome", "Mobile", "85.0", "on", "(", ")", "Android", "iPad", " (Android 9)", "64-bit", "32-bit", ";", "é",
                "7\u{3b2}8", "Windows", "Apple", "OS X", "Mozilla/5.0",
            ]), 0..12),
            separator in "[ ]{0,2}",
        ) {
            let platform = parts.join(&separator);
            prop_assert!(parse(&platform).version.is_none_or(|version| version.parse::<u32>().is_ok()));
        }

        #[test]
        fn a_browser_keeps_its_major_version_whatever_follows(
            major in 1_u32..999_999, minor in "[0-9.]{0,12}", os in "(Windows 10|OS X 10.15|Linux)",
        ) {
            let platform = format!("Firefox {major}.{minor} on {os}");
            let client = parse(&platform);
            prop_assert_eq!(client.browser, Some("Firefox"));
            prop_assert_eq!(client.version.map(str::to_owned), Some(major.to_string()));
            prop_assert_eq!(client.device, Device::Desktop);
        }
    }
}

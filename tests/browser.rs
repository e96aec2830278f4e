//! The page in a real browser, over a month of calls.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test that fails shows where"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use callscope::panels::model::{Expect, Form};
use callscope::panels::{self, Dashboard, Panel};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "support/chromium.rs"]
mod chromium;
#[path = "support/elastic_double.rs"]
#[expect(dead_code, reason = "who writes needs more of it")]
mod elastic_double;
#[path = "support/instance.rs"]
#[expect(dead_code, reason = "groups need more of it")]
mod instance;
#[path = "support/month.rs"]
#[expect(dead_code, reason = "who reckons needs more of it")]
mod month;

use axum::http::Method;
use chromium::Browser;
use elastic_double::Double;
use instance::Instance;

/// Between two statistics of an endpoint, milliseconds.
const STATS_EVERY: i64 = 300_000;
/// All of the month, and of the odd cases that lie before it.
const ALL: &str = "from=1550000000000&to=1705000000000";
/// The month.
const MONTH: &str = "from=1698364800000&to=1701043200000";

/// An index of the month, made once.
fn month() -> &'static Path {
    static MADE: LazyLock<TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("places.mmdb");
        std::fs::write(&database, callscope::simulate::PLACES_DATABASE).unwrap();
        let settings = [("CALLSCOPE__GEOIP__DATABASES", database.to_str().unwrap())];
        let lines = month::a_month_and_the_odd_cases(STATS_EVERY);
        month::import(&lines, "embedded", folder.path(), &settings);
        folder
    });
    MADE.path()
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callscope"));
    command
        .env("CALLSCOPE__DATA_DIR", data_dir)
        .env("CALLSCOPE__HTTP__LISTEN", "127.0.0.1:0")
        .env("CALLSCOPE__STATS__EVERY", "0s");
    command
}

/// A callscope of its own, with the index of the month if it is wanted.
struct Page {
    instance: Instance,
    _folder: TempDir,
}

impl Page {
    fn over_the_month() -> Self {
        Self::with(true, &[])
    }

    fn with(has_month: bool, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if has_month {
            let from = month().join("index");
            let copied =
                Command::new("cp").arg("-r").arg(from).arg(folder.path()).status().unwrap();
            assert!(copied.success());
        }
        let instance = Instance::start(command(folder.path()).envs(environment.iter().copied()));
        Self { instance, _folder: folder }
    }

    fn url(&self, hash: &str) -> String {
        format!("http://{}/#/{hash}", self.instance.address)
    }

    /// Events as OpenVidu posts them.
    fn post(&self, events: &[Value]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for event in events {
                let body = event.to_string();
                let mut stream = tokio::net::TcpStream::connect(self.instance.address).await.unwrap();
                let head = format!("POST /webhook HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        });
    }
}

fn boards() -> impl Iterator<Item = &'static Dashboard> {
    panels::all().iter().filter(|dashboard| dashboard.of_one.is_none())
}

/// Asserts that the browser complained of nothing, and asked nobody else.
fn nothing_is_wrong(browser: &Browser, page: &Page) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let own = format!("http://{}/", page.instance.address);
    for url in browser.requests() {
        assert!(url.starts_with(&own) || url == "about:blank" || url.starts_with("data:"), "{url}");
    }
}

#[test]
fn the_first_load_is_small() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until("document.querySelectorAll('tbody tr').length >= 30");
    let bytes = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].reduce((sum, one) => sum + one.transferSize, 0)";
    let bytes = browser.value(bytes).as_u64().unwrap();
    assert!((20_000..100_000).contains(&bytes), "{bytes}");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn every_panel_is_filled_or_says_why_it_is_empty() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    for dashboard in boards() {
        browser.open(&page.url(&format!("d/{}?{ALL}", dashboard.id.value)));
        assert_eq!(browser.text("document.querySelector('h1').textContent"), dashboard.title);
        for panel in dashboard.panels() {
            let is_empty = is_empty(&mut browser, panel);
            assert_eq!(is_empty, panel.expect == Expect::Empty, "{}", panel.id.value);
        }
    }
    nothing_is_wrong(&browser, &page);
}

/// Whether a panel says that it is empty and why; asserts that it draws something else.
fn is_empty(browser: &mut Browser, panel: &Panel) -> bool {
    let id = &panel.id.value;
    let one = format!("document.querySelector('[data-panel={id}]')");
    assert_eq!(browser.text(&format!("{one}.querySelector('h3').textContent")), panel.title);
    let has = |browser: &mut Browser, class: &str| {
        browser.value(&format!("{one}.classList.contains('{class}')")) == true
    };
    assert!(!has(browser, "is-failed"), "{id}");
    let body = browser.text(&format!("{one}.querySelector('.body').textContent"));
    if has(browser, "is-empty") {
        assert_eq!(body, panel.empty, "{id}");
        return true;
    }
    let drawn = match panel.form {
        Form::Numbers => ".figures dd",
        Form::Table | Form::List => "tbody td",
        Form::Donut => ".slice",
        Form::Treemap | Form::Heatmap => "svg rect",
        Form::Map => "circle.place",
        Form::Line | Form::Stairs => ".line, .dot",
        Form::Area => ".area, .dot",
        Form::Bar | Form::FullBar => ".bar, .fill",
    };
    let count = browser.value(&format!("{one}.querySelectorAll('.body :is({drawn})').length"));
    assert!(count.as_u64().unwrap() > 0, "{id} draws nothing: {body}");
    if matches!(panel.form, Form::Line | Form::Stairs) {
        // What is the worse the smaller it is: there the least is of interest.
        let mut shown = panel.show.iter().filter(|metric| !metric.hidden);
        let legend = browser.text(&format!("{one}.querySelector('.legend').textContent"));
        assert_eq!(
            legend.contains("min "),
            shown.any(|metric| metric.value.is_least()),
            "{id}: {legend}"
        );
    }
    false
}

#[test]
fn dragging_over_a_chart_looks_closer_and_going_back_looks_wide_again() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    let before = browser.text("location.hash");
    let [x, y, width, height] = browser.place("[data-panel=joins-and-leaves] .plot svg");
    let middle = y + height / 2.0;
    browser.mouse("mouseMoved", x + width * 0.4, middle);
    browser.until("document.querySelectorAll('.hair.shown').length > 3");
    let told =
        browser.text("document.querySelector('[data-panel=joins-and-leaves] .legend').textContent");
    let at =
        browser.text("document.querySelector('[data-panel=joins-and-leaves] .moment').textContent");
    assert!(told.contains("/min") && at.contains("Nov"), "{told}, {at}");
    browser.mouse("mousePressed", x + width * 0.4, middle);
    browser.mouse("mouseMoved", x + width * 0.5, middle);
    browser.mouse("mouseReleased", x + width * 0.6, middle);
    browser.until(&format!("location.hash !== {}", json!(before)));
    browser.settled();
    let [from, to] = ["from", "to"].map(|name| {
        let time = browser.value(&format!(
            "Number(new URLSearchParams(location.hash.split('?')[1]).get('{name}'))"
        ));
        time.as_i64().unwrap()
    });
    assert!(from > 1_698_364_800_000 && to < 1_701_043_200_000 && from < to, "{from} {to}");
    browser.value("history.back()");
    browser.until(&format!("location.hash === {}", json!(before)));
    browser.settled();
    nothing_is_wrong(&browser, &page);
}

/// The first of the large numbers of "In this time": sessions.
const SESSIONS: &str = "document.querySelector('[data-panel=totals] dd').textContent";

/// Steps are those of the clock: the first one may begin before what is looked at, and counts.
#[test]
fn charts_show_as_many_steps_as_something_was_counted_in() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    let bars = "new Set([...document.querySelectorAll('[data-panel=streams-started] rect.bar')].map((bar) => bar.getAttribute('x'))).size";
    for minutes in [0, 7, 23, 41, 59] {
        // From the middle of a step, each time another.
        let from = 1_698_364_800_000_i64 + 3 * 86_400_000 + minutes * 60_000 * 61;
        let time = format!("from={from}&to={}", from + 7 * 86_400_000);
        browser.open(&page.url(&format!("d/sessions?{time}")));
        browser.settled();
        let counted = format!(
            "fetch(`/api/panels/streams-started?{time}&zone=${{Intl.DateTimeFormat().resolvedOptions().timeZone}}`).then((answer) => answer.json()).then(({{ parts }}) => new Set(parts.filter((part) => part.values.some(Boolean)).map((part) => part.keys.find(Number.isInteger))).size)"
        );
        let counted = browser.value(&counted);
        assert!(counted.as_u64().unwrap() > 3, "{counted}");
        assert_eq!(browser.value(bars), counted, "{minutes}");
    }
    nothing_is_wrong(&browser, &page);
}

#[test]
fn any_value_narrows_the_whole_until_it_is_taken_away() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    let all = browser.text(SESSIONS);
    browser.click("[data-panel=reasons-of-leaving] .shares button");
    browser.until("document.querySelector('.chip')");
    browser.settled();
    assert!(browser.text("document.querySelector('.chip').textContent").starts_with("reason left"));
    assert!(browser.text("location.hash").contains("filter=reason%3Adisconnect"));
    let empty = browser.text("document.querySelector('.is-empty .nothing').textContent");
    assert!(empty.starts_with("Nothing of this has reason as the filters say"), "{empty}");
    browser.click(".chip");
    browser.until("!document.querySelector('.chip')");
    browser.settled();
    assert_eq!(browser.text(SESSIONS), all);
    // By a menu.
    browser.click("[data-key='client.browser'] summary");
    browser.until("document.querySelector('[data-key=\"client.browser\"] li button')");
    browser.click("[data-key='client.browser'] li button");
    browser.until("document.querySelector('.chip')");
    browser.settled();
    let narrowed = browser
        .text("document.querySelector('[data-panel=locations] td:nth-child(2)').textContent");
    browser.click(".chip");
    browser.until("!document.querySelector('.chip')");
    browser.settled();
    assert_ne!(
        browser
            .text("document.querySelector('[data-panel=locations] td:nth-child(2)').textContent"),
        narrowed
    );
    nothing_is_wrong(&browser, &page);
}

/// Statistics are of `video`, and what the media server tells of media is of `VIDEO`.
#[test]
fn a_kind_of_media_is_one_however_it_is_spelled() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/quality?{MONTH}")));
    browser.settled();
    browser.click("[data-key=mediaType] summary");
    browser.until("document.querySelector('[data-key=mediaType] li button')");
    let kinds = "[...document.querySelectorAll('[data-key=mediaType] li span')].map((kind) => kind.textContent)";
    let kinds = browser.value(kinds);
    let kinds: Vec<&str> = kinds.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(kinds.contains(&"video") && !kinds.contains(&"VIDEO"), "{kinds:?}");
    let video = kinds.iter().position(|kind| *kind == "video").unwrap() + 1;
    browser.click(&format!("[data-key=mediaType] li:nth-child({video}) button"));
    browser.until("document.querySelector('.chip')");
    browser.settled();
    for panel in ["jitter", "packet-loss", "interruptions"] {
        let is_empty = format!(
            "document.querySelector('[data-panel={panel}]').classList.contains('is-empty')"
        );
        assert_eq!(browser.value(&is_empty), false, "{panel}");
    }
    nothing_is_wrong(&browser, &page);
}

/// Also a place on the map, a tile of a map of shares, a class of numbers and a cell of a grid.
#[test]
fn parts_of_every_form_narrow_the_whole() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    let chips = "[...document.querySelectorAll('.chip')].map((chip) => chip.textContent)";
    for (board, part, named) in [
        ("sessions", "[data-panel=places] circle.place", r"^place near -?\d+\.\d, -?\d+\.\d ×$"),
        ("sessions", "[data-panel=clients] [role=button]", "^browser \\w.* ×,system \\w.* ×$"),
        ("sessions", "[data-panel=session-size] button.name", r"^people .* ×$"),
        ("capacity", "[data-panel=busy-hours] rect.chosen", r"^day \w{3} ×,hour \d\d:00 ×$"),
    ] {
        browser.open(&page.url(&format!("d/{board}?{MONTH}")));
        browser.settled();
        browser.until(&format!("document.querySelector('{part}')"));
        let point = "{ bubbles: true }";
        browser.value(&format!(
            "document.querySelector('{part}').dispatchEvent(new MouseEvent('click', {point}))"
        ));
        browser.until("document.querySelector('.chip')");
        browser.settled();
        assert_eq!(browser.value("document.querySelectorAll('.is-failed').length"), 0, "{part}");
        assert!(
            browser.value("document.querySelectorAll('.panel:not(.is-empty)').length").as_u64()
                > Some(0),
            "{part}"
        );
        let shown = browser.value(chips);
        assert_eq!(
            browser.value(&format!("new RegExp({}).test({chips}.join())", json!(named))),
            true,
            "{shown}"
        );
        // All that one click has chosen goes with another on the same.
        browser.value(&format!(
            "document.querySelector('{part}').dispatchEvent(new MouseEvent('click', {point}))"
        ));
        browser.until("!document.querySelector('.chip')");
        browser.settled();
    }
    // A name leads to the sessions that have it.
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    browser.until("document.querySelector('[data-panel=billing] td a')");
    let name = browser.text("document.querySelector('[data-panel=billing] td a').textContent");
    browser.click("[data-panel=billing] td a");
    browser.until("document.querySelector('table.list td.name a')");
    let found = browser.value(
        "[...document.querySelectorAll('table.list td.name a')].map((link) => link.textContent)",
    );
    assert!(found.as_array().unwrap().contains(&json!(name)), "{name}: {found}");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_session_leads_where_the_settings_say() {
    let environment = [(
        "CALLSCOPE__HTTP__LINKS",
        "Server logs https://logs.example.com/?at={from_ms}-{to_ms}&session={session},Room https://rooms.example.com/{name}",
    )];
    let page = Page::with(true, &environment);
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/quality?{MONTH}")));
    browser.until("document.querySelector('[data-panel=sessions-with-problems] td a')");
    browser.click("[data-panel=sessions-with-problems] td a");
    browser.until("document.querySelector('.further a')");
    let links = browser.value("[...document.querySelectorAll('.further a')].map((link) => [link.textContent, link.href, link.rel])");
    let id = browser.text("decodeURIComponent(location.hash.split('/')[2])");
    let address = links[0][1].as_str().unwrap();
    let (times, session) = address.split_once("&session=").unwrap();
    assert_eq!((links[0][0].as_str(), session), (Some("Server logs"), &*id));
    let times = times.strip_prefix("https://logs.example.com/?at=").unwrap();
    let (from, to) = times.split_once('-').unwrap();
    assert!(from.parse::<i64>().unwrap() < to.parse::<i64>().unwrap(), "{links}");
    assert_eq!(
        links[1][1],
        format!(
            "https://rooms.example.com/{}",
            browser.text("document.querySelector('h1').textContent")
        )
    );
    assert_eq!(links[1][2], "noreferrer");
}

/// The parts of one session.
const TABS: [&str; 6] = ["people", "streams", "recordings", "charts", "events", "raw"];
/// What not every session has.
const RARE: [&str; 7] = [
    "session-recordings",
    "session-network",
    "session-gaps",
    "session-signals",
    "session-filters",
    "session-broadcasts",
    "session-negotiation",
];

#[test]
fn every_panel_of_one_session_is_filled_or_says_why_it_is_empty() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("?{MONTH}&sort=ended%3A4%3Adown")));
    let link = "document.querySelector('td.name a')";
    browser.until(link);
    let session = browser.text(&format!("{link}.getAttribute('href').slice(2)"));
    browser.open(&page.url(&format!("{session}/charts")));
    browser.until("document.querySelector('[data-panel=session-people] td')");
    browser.settled();
    for panel in panels::dashboard("session").unwrap().panels() {
        let is_empty = is_empty(&mut browser, panel);
        assert!(!is_empty || RARE.contains(&&*panel.id.value), "{}", panel.id.value);
    }
    nothing_is_wrong(&browser, &page);
}

#[test]
fn the_list_of_what_ended_is_sorted_and_saved_as_a_whole() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until("document.querySelector('td.name a')");
    browser.click("[data-key=by-3]");
    browser.until("document.querySelector('th[aria-sort=descending] [data-key=by-3]')");
    browser.until("location.hash.includes('sort=ended%3A3%3Adown')");
    // Written into a file, it is kept here instead.
    browser
        .value("URL.createObjectURL = (blob) => { window.saved = blob; return 'data:,'; }; true");
    browser.click("[data-key=save-JSON]");
    browser.until("window.saved");
    let saved: Value = serde_json::from_str(&browser.text("window.saved.text()")).unwrap();
    let seconds: Vec<i64> =
        saved.as_array().unwrap().iter().map(|one| one["duration"].as_i64().unwrap()).collect();
    let shown = browser.value("document.querySelectorAll('td.name a').length").as_u64().unwrap();
    assert!(seconds.len() > 100 && shown < 100, "{} saved, {shown} shown", seconds.len());
    assert!(seconds.is_sorted_by(|one, next| one >= next), "{seconds:?}");
    let first = browser.text("document.querySelector('td.name a').getAttribute('href')");
    assert!(first.ends_with(saved[0]["uniqueSessionId"].as_str().unwrap()), "{first}");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_session_with_problems_leads_to_what_happened_in_it() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/quality?{MONTH}")));
    browser.until("document.querySelector('[data-panel=sessions-with-problems] td a')");
    let id = browser
        .text("document.querySelector('[data-panel=sessions-with-problems] td a').textContent");
    browser.click("[data-panel=sessions-with-problems] td a");
    browser.until("document.querySelector('.time')");
    assert!(id.starts_with(&browser.text("document.querySelector('h1').textContent")), "{id}");
    assert!(!browser.text("document.querySelector('.problems').textContent").is_empty());
    assert!(browser.value("document.querySelectorAll('.row.person').length").as_u64().unwrap() > 0);
    let tab = |browser: &mut Browser, name: &str| {
        browser.value(&format!("[...document.querySelectorAll('[role=tab]')].find((tab) => tab.textContent.startsWith('{name}')).click() || true"));
    };
    tab(&mut browser, "events");
    browser.click(".event summary");
    browser.until("document.querySelector('.event[open] pre')");
    let event: Value =
        serde_json::from_str(&browser.text("document.querySelector('.event pre').textContent"))
            .unwrap();
    assert_eq!(event["uniqueSessionId"], id, "an event as it was stored");
    browser.click("[data-key='With media statistics']");
    browser.until(
        "[...document.querySelectorAll('.event summary')].some((line) => line.textContent.includes('webrtcStats'))",
    );
    tab(&mut browser, "charts");
    browser.until("document.querySelector('[data-panel=session-people] td')");
    browser.settled();
    assert_eq!(browser.value("document.querySelectorAll('.is-failed').length"), 0);
    browser.value("history.back()");
    browser.until("document.querySelector('[data-panel=sessions-with-problems] td a')");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_link_shows_tables_as_they_were_sorted() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    browser.click("[data-panel=locations] th:nth-child(3) button");
    browser.click("[data-panel=locations] th:nth-child(3) button");
    browser.click("[data-panel=concurrency] .tools button");
    let hash = browser.text("location.hash");
    assert!(
        hash.contains("sort=locations%3A2%3Aup") && hash.contains("table=concurrency"),
        "{hash}"
    );
    let cells = "[...document.querySelectorAll('[data-panel=locations] td:nth-child(3)')].map((cell) => Number(cell.textContent))";
    let shown = browser.value(cells);
    browser.open(&page.url(hash.trim_start_matches("#/")));
    assert_eq!(browser.value(cells), shown);
    assert!(shown.as_array().unwrap().is_sorted_by_key(Value::as_i64), "{shown}");
    browser.until("document.querySelectorAll('[data-panel=concurrency] tbody tr').length > 20");
    // A filter more leaves it so.
    browser.click("[data-panel=reasons-of-leaving] .shares button");
    browser.until("document.querySelector('.chip')");
    assert!(browser.text("location.hash").contains("table=concurrency"));
    nothing_is_wrong(&browser, &page);
}

#[test]
fn an_address_that_cannot_be_shown_is_told_of_once() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser
        .open(&page.url(&format!("d/sessions?{MONTH}&filter=raeson%3Ax&sort=locations%3A77%3Aup")));
    browser.until("document.querySelector('.notice.failed')?.textContent.includes('No field is called raeson')");
    assert_eq!(browser.value("document.querySelectorAll('[role=alert]').length"), 1);
    browser.click(".notice.failed a");
    browser.until("!document.querySelector('.notice.failed')");
    browser.settled();
    assert_eq!(browser.value("document.querySelectorAll('.is-failed').length"), 0);
}

#[test]
fn the_map_has_land_where_there_is_land() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    browser.until("document.querySelector('.land')");
    for (place, latitude, longitude, is_land) in [
        ("Berlin", 52.5, 13.4, true),
        ("Timbuktu", 16.8, -3.0, true),
        ("Nagpur", 21.1, 79.1, true),
        ("Denver", 39.7, -105.0, true),
        ("Alice Springs", -23.7, 133.9, true),
        ("Anadyr", 66.0, -178.0, true),
        ("the Atlantic", 0.0, -30.0, false),
        ("the Pacific", 0.0, -140.0, false),
        ("the Indian Ocean", -20.0, 80.0, false),
    ] {
        let found = browser.value(&format!(
            "(() => {{ const x = ({longitude} + 180) / 360 * 2000, y = (1 - Math.asinh(Math.tan({latitude} * Math.PI / 180)) / Math.PI) * 1000; return [...document.querySelectorAll('.land')].some((land, i) => land.isPointInFill(new DOMPoint(x - [-2000, 0, 2000][i], y))); }})()"
        ));
        assert_eq!(found, is_land, "{place}");
    }
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_call_of_hundreds_is_shown_whole_however_many_events_it_has() {
    let page = Page::with(false, &[]);
    let mut events = joined("town-hall", "con_0", "u0");
    let join = events.pop().unwrap();
    for person in 0..320 {
        let mut event = join.clone();
        event["connectionId"] = json!(format!("con_{person}"));
        event["clientData"] = json!(format!("u{person}"));
        events.push(event.clone());
        event["event"] = json!("webrtcConnectionCreated");
        event["connection"] = json!("INBOUND");
        for from in 0..3 {
            event["streamId"] = json!(format!("str_{from}_{person}"));
            event["receivingFrom"] = json!(format!("con_{from}"));
            events.push(event.clone());
        }
    }
    for person in 290..320 {
        let mut left = join.clone();
        left["event"] = json!("participantLeft");
        left["connectionId"] = json!(format!("con_{person}"));
        left["clientData"] = json!(format!("u{person}"));
        left["reason"] = json!("networkDisconnect");
        left["timestamp"] = json!(chrono::Utc::now().timestamp_millis());
        events.push(left);
    }
    page.post(&events);
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until("document.querySelector('.card .facts')?.textContent.startsWith('290')");
    browser.click(".card");
    browser.until("document.querySelector('.lead')?.textContent.includes('320\u{a0}people')");
    browser.until("document.querySelector('.problems li')?.textContent.includes('30 people were cut off at once: the network was lost. ')");
    // So many are folded: those with trouble are seen, and what lies below is near.
    browser.until("document.querySelectorAll('.row.person').length === 20");
    browser.click("[data-key=everybody]");
    browser.until("document.querySelectorAll('.row.person').length === 320");
    // What a problem is about is not among the first thousand events.
    browser.click(".problems li .pickable");
    browser.until(
        "document.querySelector('#panel .event[open]')?.textContent.includes('participantLeft')",
    );
    assert!(browser.text("document.querySelector('#panel .quiet').textContent").contains("around"));
    browser.click("[data-key='Show all from the beginning']");
    browser.until("document.querySelectorAll('#panel .event').length === 1000");
    browser.click("[data-key^='Show more']");
    browser.until("document.querySelectorAll('#panel .event').length > 1000");
    assert!(browser.text("location.hash").ends_with("/events"), "a link leads to this part");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn what_is_shown_is_saved_as_a_file() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    let folder = browser.folder.path().join("saved");
    std::fs::create_dir(&folder).unwrap();
    browser.call(
        "Browser.setDownloadBehavior",
        &json!({ "behavior": "allow", "downloadPath": folder, "eventsEnabled": true }),
    );
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    for (panel, button, file) in [
        ("locations", 1, "locations.csv"),
        ("concurrency", 3, "concurrency.json"),
        ("reasons-of-leaving", 2, "reasons-of-leaving.csv"),
    ] {
        browser.click(&format!("[data-panel={panel}] .tools button:nth-child({button})"));
        let begun =
            browser.event("Browser.downloadWillBegin", |told| told["suggestedFilename"] == file);
        browser.event("Browser.downloadProgress", |told| {
            told["guid"] == begun["guid"] && told["state"] == "completed"
        });
    }
    let places = std::fs::read_to_string(folder.join("locations.csv")).unwrap();
    let mut lines = places.lines();
    assert_eq!(lines.next(), Some("\"Place\",\"Connections\",\"Users\",\"Ended badly\""));
    assert!(lines.any(|line| line.starts_with("\"Madrid, Spain\",")), "{places}");
    let answer: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("concurrency.json")).unwrap())
            .unwrap();
    assert!(!answer["parts"].as_array().unwrap().is_empty());
    assert!(
        std::fs::read_to_string(folder.join("reasons-of-leaving.csv"))
            .unwrap()
            .contains("\"disconnect\",")
    );
    // A column sorts the rows.
    browser.click("[data-panel=locations] th:first-child button");
    let rising =
        browser.text("document.querySelector('[data-panel=locations] tbody td').textContent");
    browser.click("[data-panel=locations] th:first-child button");
    assert_ne!(
        browser.text("document.querySelector('[data-panel=locations] tbody td').textContent"),
        rising
    );
    nothing_is_wrong(&browser, &page);
}

/// For each text of the page: its colour against what is behind it, as WCAG 2 has it. Gives those that are too close.
const FAINT: &str = r"(() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (color) => { const [r, g, b] = rgba(color).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (let at = node; at; at = at.parentElement) { const color = getComputedStyle(at).backgroundColor; if (rgba(color)[3] > 250) return color; } return 'white'; };
  const found = new Set();
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const isDrawn = node instanceof SVGElement;
    if (!node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) || node.closest('.treemap, .plot.map, title, noscript, .tools, .rise')) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(isDrawn ? style.fill : style.color), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.add(`${node.tagName}.${node.getAttribute('class')} ${contrast.toFixed(2)} ${node.textContent.slice(0, 30)}`);
  }
  return [...found];
})()";

#[test]
fn it_is_read_well_in_light_and_dark() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    let mut grounds = Vec::new();
    for is_dark in [false, true] {
        browser.is_dark(is_dark);
        for path in ["d/sessions", "d/quality", ""] {
            browser.open(&page.url(&format!("{path}?{MONTH}")));
            assert_eq!(browser.value(FAINT), json!([]), "dark: {is_dark}, {path}");
        }
        grounds.push(browser.text("getComputedStyle(document.documentElement).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1]);
    // Whoever wants the other one chooses it, and keeps it.
    browser.click("#theme");
    browser.open(&page.url(""));
    assert_eq!(
        browser.text("getComputedStyle(document.documentElement).backgroundColor"),
        grounds[0]
    );
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_phone_shows_everything_without_moving_sideways() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.size(390, 844);
    let mut paths: Vec<String> = boards().map(|board| format!("d/{}", board.id.value)).collect();
    paths.push(String::new());
    browser.open(&page.url(&format!("d/quality?{MONTH}")));
    let link = "document.querySelector('[data-panel=sessions-with-problems] td a')";
    browser.until(link);
    let session = browser.text(&format!("{link}.getAttribute('href').slice(2)"));
    paths.extend(TABS.map(|tab| format!("{session}/{tab}")));
    for path in paths {
        browser.open(&page.url(&format!("{path}?{MONTH}")));
        let wide = browser.value("[...document.querySelectorAll('body *')].filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1 && !node.closest('.scroll, #tabs, svg, .legend, .moves')).map((node) => node.className)");
        assert_eq!(wide, json!([]), "{path}");
        assert_eq!(browser.value("document.documentElement.scrollWidth"), 390, "{path}");
    }
    nothing_is_wrong(&browser, &page);
}

#[test]
fn figures_and_legends_are_not_cut() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    for (width, board) in
        [360, 1280].into_iter().flat_map(|width| boards().map(move |board| (width, board)))
    {
        browser.size(width, 844);
        browser.open(&page.url(&format!("d/{}?{MONTH}", board.id.value)));
        browser.settled();
        let cut = browser.value(
            "[...document.querySelectorAll('.panel')].filter((panel) => {
                const more = panel.querySelector('.legend .all:not([hidden])')?.getBoundingClientRect();
                const isCovered = (entry) => { const one = entry.getBoundingClientRect(); return one.bottom > more.top && one.top < more.bottom && one.right > more.left; };
                return [...panel.querySelectorAll('.figures')].some((figures) => figures.scrollWidth > figures.clientWidth)
                    || more && [...panel.querySelectorAll('.entry:not(.beyond)')].some(isCovered);
            }).map((panel) => panel.dataset.panel)",
        );
        assert_eq!(cut, json!([]), "{} at {width}", board.id.value);
    }
    nothing_is_wrong(&browser, &page);
}

fn joined(session: &str, connection: &str, data: &str) -> Vec<Value> {
    let at = chrono::Utc::now().timestamp_millis();
    let unique = format!("{session}_{at}");
    let event = |event: &str, more: Value| {
        let mut json = json!({ "sessionId": session, "uniqueSessionId": unique, "timestamp": at, "event": event });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    };
    vec![
        event("sessionCreated", json!({})),
        event(
            "participantJoined",
            json!({ "connectionId": connection, "clientData": data, "serverData": "", "platform": data, "location": data }),
        ),
    ]
}

#[test]
fn who_joins_is_seen_at_once() {
    let page = Page::with(false, &[]);
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    assert!(
        browser
            .text("document.querySelector('.empty').textContent")
            .contains("OPENVIDU_WEBHOOK=true")
    );
    page.post(&joined("daily-standup", "con_1", r#"{"clientData": "Ana"}"#));
    browser.until("document.querySelector('.card b')?.textContent === 'daily-standup'");
    browser.until(
        "document.querySelector('.moves')?.textContent.includes('Ana joined daily-standup')",
    );
    assert_eq!(browser.text("document.querySelector('.number b').textContent"), "1");
    nothing_is_wrong(&browser, &page);
}

/// OpenVidu removes such a session without telling so: it has no end, and may long be gone.
#[test]
fn of_a_session_that_nobody_joins_no_end_is_told() {
    let page = Page::with(false, &[]);
    let mut browser = Browser::start();
    let created = joined("waiting-room", "con_1", "").remove(0);
    let id = created["uniqueSessionId"].as_str().unwrap().to_owned();
    page.post(&[created]);
    browser.open(&page.url(&format!("s/{id}")));
    browser.until("document.querySelector('h1')?.textContent === 'waiting-room'");
    let lead = browser.text("document.querySelector('.lead').textContent");
    assert!(lead.starts_with("created ") && lead.ends_with(" · nobody has joined it"), "{lead}");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn nothing_that_somebody_sends_becomes_more_than_text() {
    const HOSTILE: &str = "<img src=x onerror=hacked()><script>hacked()</script>";
    let page = Page::with(false, &[("CALLSCOPE__SESSIONS__SILENT_AFTER", "1d")]);
    let mut browser = Browser::start();
    let mut events = joined(HOSTILE, HOSTILE, HOSTILE);
    page.post(&events);
    browser.open(&page.url(""));
    browser.value("window.hacked = () => { window.isHacked = true; }");
    browser.until("document.querySelector('.card b')");
    assert_eq!(browser.text("document.querySelector('.card b').textContent"), HOSTILE);
    let mut ends: Vec<Value> = Vec::new();
    for (name, more) in [
        (
            "participantLeft",
            json!({ "connectionId": HOSTILE, "reason": HOSTILE, "startTime": events[0]["timestamp"], "duration": 0, "clientData": HOSTILE, "location": HOSTILE, "platform": HOSTILE }),
        ),
        (
            "sessionDestroyed",
            json!({ "reason": HOSTILE, "startTime": events[0]["timestamp"], "duration": 0 }),
        ),
    ] {
        let mut end = events[0].clone();
        end["event"] = json!(name);
        end.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ends.push(end);
    }
    page.post(&ends);
    events.extend(ends);
    browser.until("document.querySelector('td.name a')");
    let unique = events[0]["uniqueSessionId"].as_str().unwrap().to_owned();
    for path in
        ["d/sessions?last=1h", "d/recordings?last=1h", "d/quality?last=1h", "d/nodes?last=1h"]
    {
        browser.open(&page.url(path));
        assert_eq!(
            browser.value("window.isHacked ?? document.querySelector('img, main script') ?? 'no'"),
            "no",
            "{path}"
        );
    }
    browser.open(&page.url("d/sessions?last=1h"));
    assert!(
        browser
            .text("document.querySelector('[data-panel=reasons-of-leaving] .name').textContent")
            .contains("<script>")
    );
    // As a filter, and as a session.
    browser.click("[data-panel=reasons-of-leaving] .shares button");
    browser.until("document.querySelector('.chip')");
    browser.settled();
    assert!(browser.text("document.querySelector('.chip').textContent").contains(HOSTILE));
    browser
        .value(&format!("location.hash = '#/s/' + encodeURIComponent({}) || true", json!(unique)));
    browser.until("document.querySelector('.time')");
    for tab in ["events", "charts", "raw", "people"] {
        browser.value(&format!("[...document.querySelectorAll('[role=tab]')].find((tab) => tab.textContent.startsWith('{tab}')).click() || true"));
        browser.settled();
    }
    assert_eq!(
        browser.value("window.isHacked ?? document.querySelector('img, main script') ?? 'no'"),
        "no"
    );
    nothing_is_wrong(&browser, &page);
}

/// Once, and not in each panel.
fn a_dashboard_says_so_once(browser: &mut Browser, page: &Page) {
    browser.open(&page.url("d/sessions"));
    browser
        .until("document.querySelector('.notice.failed')?.textContent.includes('does not answer')");
    assert_eq!(browser.value("document.querySelectorAll('[role=alert]').length"), 1);
    let failed = browser.value("document.querySelectorAll('.is-failed').length");
    assert_eq!(failed, panels::dashboard("sessions").unwrap().panels().count());
}

#[test]
fn an_index_that_does_not_answer_is_told_of_and_asked_again() {
    // Whoever answers there says that it cannot, until it can.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let index = runtime.block_on(Double::start());
    let away = json!({ "error": { "reason": "no shard is there" } });
    index.answers(&[(Method::POST, "/openvidu/_search", 503, away)]);
    let url = format!("http://{}", index.address);
    let environment =
        [("CALLSCOPE__SINK__KIND", "elasticsearch"), ("CALLSCOPE__ELASTICSEARCH__URLS", &*url)];
    let page = Page::with(false, &environment);
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until("document.querySelector('.notice')?.textContent.includes('does not answer')");
    a_dashboard_says_so_once(&mut browser, &page);
    let nothing = json!({ "hits": { "total": { "value": 0 }, "hits": [] } });
    index.answers(&[(Method::POST, "/openvidu/_search", 200, nothing)]);
    browser.until(
        "!document.querySelector('.notice.failed') && !document.querySelector('.is-failed')",
    );
}

#[test]
fn a_store_that_is_away_is_told_of() {
    let away = [
        ("CALLSCOPE__SINK__KIND", "elasticsearch"),
        ("CALLSCOPE__ELASTICSEARCH__URLS", "http://127.0.0.1:1"),
    ];
    let page = Page::with(false, &away);
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until(
        "document.querySelector('.notice')?.textContent.includes('The store has not answered')",
    );
    a_dashboard_says_so_once(&mut browser, &page);
}

#[test]
fn an_index_that_takes_its_time_is_told_of_until_it_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let index = runtime.block_on(Double::start());
    let nothing = json!({ "hits": { "total": { "value": 0 }, "hits": [] } });
    index.answers(&[(Method::POST, "/openvidu/_search", 200, nothing)]);
    let url = format!("http://{}", index.address);
    let environment =
        [("CALLSCOPE__SINK__KIND", "elasticsearch"), ("CALLSCOPE__ELASTICSEARCH__URLS", &*url)];
    let page = Page::with(false, &environment);
    let mut browser = Browser::start();
    let told = "document.querySelector('.notice.waiting')?.textContent.includes('the index has not answered yet')";
    for (path, shown) in
        [("d/sessions", "document.querySelectorAll('.is-empty').length > 3"), ("", ".empty")]
    {
        let shown = if path.is_empty() {
            format!("document.querySelector('{shown}')")
        } else {
            shown.to_owned()
        };
        index.hang(true);
        browser.call("Page.navigate", &json!({ "url": "about:blank" }));
        browser.call("Page.navigate", &json!({ "url": page.url(path) }));
        browser.until(told);
        index.hang(false);
        browser.until(&format!("{shown} && !document.querySelector('.notice.waiting')"));
    }
    // What comes meanwhile is shown, also by a page that knows nothing else yet; whoever goes back sees it, too.
    index.hang_searches();
    browser.call("Page.navigate", &json!({ "url": "about:blank" }));
    browser.call("Page.navigate", &json!({ "url": page.url("") }));
    browser.until(told);
    page.post(&joined("early-standup", "con_0", "Bo"));
    browser.until("document.querySelector('.card b')?.textContent === 'early-standup'");
    browser.until(told);
    index.hang(false);
    browser.until("!document.querySelector('.notice.waiting')");
    index.hang_searches();
    browser.until(told);
    page.post(&joined("daily-standup", "con_1", "Ana"));
    browser.until("[...document.querySelectorAll('.card b')].some((name) => name.textContent === 'daily-standup')");
    browser.until(told);
    browser.value("location.hash = '#/d/sessions'");
    browser.until("document.querySelector('h1')?.textContent === 'Sessions'");
    browser.value("location.hash = '#/'");
    browser.until("document.querySelector('.card b') && !document.querySelector('.panels')");
    browser.until(told);
    // What is known of an open session needs no index either.
    let card = "document.querySelector('.card').getAttribute('href')";
    browser.value(&format!("location.hash = {card}"));
    browser.until(&format!(
        "{told} && document.querySelector('#open') && document.querySelector('#panel td')"
    ));
    let lead = browser.text("document.querySelector('.lead').textContent");
    assert!(lead.ends_with("1\u{a0}person"), "{lead}");
    index.hang(false);
    browser.until("document.querySelector('#open') && !document.querySelector('.notice.waiting')");
    nothing_is_wrong(&browser, &page);
}

#[test]
fn a_callscope_that_does_not_answer_leaves_what_was_shown() {
    let page = Page::with(false, &[]);
    page.post(&joined("daily-standup", "con_1", "Ana"));
    let mut browser = Browser::start();
    browser.open(&page.url(""));
    browser.until("document.querySelector('.card b')");
    page.instance.kill();
    browser.until(
        "document.querySelector('.notice.failed')?.textContent.includes('has not answered since')",
    );
    assert_eq!(browser.text("document.querySelector('.card b').textContent"), "daily-standup");
}

#[test]
fn keys_reach_everything_and_charts_are_told_in_words() {
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/sessions?{MONTH}")));
    browser.key("/");
    browser.until("document.activeElement.name === 'q'");
    browser.key("Escape");
    browser.key("t");
    browser.until(
        "document.querySelector('.range').open && document.activeElement.closest('.presets')",
    );
    browser.key("Escape");
    browser.until("!document.querySelector('.range').open");
    browser.key("?");
    browser.until("document.getElementById('help').open");
    browser.key("Escape");
    browser.until("!document.getElementById('help').open");
    let unnamed = browser.value("[...document.querySelectorAll('main svg[role=img], main button, main [role=region]')].filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim())).map((node) => node.outerHTML.slice(0, 100))");
    assert_eq!(unnamed, json!([]));
    browser.value("document.querySelector('[data-panel=concurrency] .plot svg').focus()");
    browser.key("ArrowRight");
    browser.key("ArrowRight");
    let told =
        browser.text("document.querySelector('[data-panel=concurrency] .legend').textContent");
    let at = browser.text("document.querySelector('[data-panel=concurrency] .moment').textContent");
    assert!(told.contains("Sessions") && at.contains(':'), "{told}, {at}");
    // The twin of a chart has every value.
    browser.click("[data-panel=concurrency] .tools button");
    browser.until("document.querySelectorAll('[data-panel=concurrency] tbody tr').length > 20");
    nothing_is_wrong(&browser, &page);
}

/// Pictures of everything, into the folder that `CALLSCOPE_SCREENSHOTS` names: `make screenshots`.
#[test]
fn pictures() {
    let Some(folder) = std::env::var_os("CALLSCOPE_SCREENSHOTS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).unwrap();
    let page = Page::over_the_month();
    let mut browser = Browser::start();
    browser.open(&page.url(&format!("d/quality?{MONTH}")));
    browser.until("document.querySelector('[data-panel=sessions-with-problems] td a')");
    let session = browser.text("document.querySelector('[data-panel=sessions-with-problems] td a').getAttribute('href').slice(2)");
    let mut views: Vec<(String, String)> = boards()
        .map(|board| (board.id.value.clone(), format!("d/{}?{MONTH}", board.id.value)))
        .collect();
    views.push(("now".to_owned(), String::new()));
    views.push(("session-view".to_owned(), session));
    views.push(("nothing".to_owned(), "d/sessions?last=1h".to_owned()));
    views.push((
        "filtered".to_owned(),
        format!("d/sessions?{MONTH}&filter=client.browser%3ASafari"),
    ));
    // As much as a reader of README.md sees of one.
    browser.size(1440, 960);
    for name in ["sessions", "session-view"] {
        let (_, path) = views.iter().find(|(known, _)| known == name).unwrap();
        browser.open(&page.url(path));
        browser.shot(&folder.join(format!("readme-{name}.png")));
    }
    for (width, height) in [(1440, 900), (1024, 768), (390, 844)] {
        for is_dark in [false, true] {
            browser.is_dark(is_dark);
            browser.size(width, height);
            for (name, path) in &views {
                browser.open(&page.url(path));
                let theme = if is_dark { "dark" } else { "light" };
                browser.picture(&folder.join(format!("{name}-{width}-{theme}.png")));
            }
        }
    }
}

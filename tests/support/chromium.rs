//! A real browser without a screen, told what to do over two pipes by the
//! protocol of its developer tools.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Browser {
    process: Child,
    told: ChildStdin,
    heard: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// Whatever it tells by itself, oldest first.
    events: Vec<Value>,
    /// What it keeps, and what it saves.
    pub folder: TempDir,
}

impl Browser {
    /// With one page that is empty.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It listens on descriptor 3 and answers on 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "chromium"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank")
            .env("TZ", "Europe/Madrid")
            .env("LANG", "en_GB.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = process.stdin.take().unwrap();
        let heard = BufReader::new(process.stdout.take().unwrap());
        let (session, events) = (None, Vec::new());
        let mut browser = Self { process, told, heard, session, last: 0, events, folder };
        let targets = browser.call("Target.getTargets", &json!({}));
        let targets = targets["targetInfos"].as_array().unwrap();
        let page = targets.iter().find(|target| target["type"] == "page").unwrap();
        let attached = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attached);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Runtime", "Log", "Page", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.size(1440, 1000);
        browser
    }

    /// Has it do something, and gives what comes of it.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.told.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let heard = self.hear();
            if heard["id"] == self.last {
                assert!(heard.get("error").is_none(), "{method} {message}: {heard}");
                return heard["result"].clone();
            }
        }
    }

    fn hear(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.heard.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        let heard: Value = serde_json::from_slice(&bytes).unwrap();
        if heard.get("method").is_some() {
            self.events.push(heard.clone());
        }
        heard
    }

    /// Waits until it tells this by itself, if it has not yet.
    pub fn event(&mut self, method: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut from = 0;
        loop {
            let found = self
                .events
                .iter()
                .skip(from)
                .find(|event| event["method"] == method && is_it(&event["params"]));
            if let Some(found) = found {
                return found["params"].clone();
            }
            from = self.events.len();
            self.hear();
        }
    }

    pub fn size(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Whether the system prefers dark colours.
    pub fn is_dark(&mut self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// What an expression gives, once it gives it.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let told = self.call("Runtime.evaluate", &asked);
        assert!(told.get("exceptionDetails").is_none(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    pub fn text(&mut self, expression: &str) -> String {
        self.value(expression)
            .as_str()
            .unwrap_or_else(|| panic!("{expression} is no text"))
            .to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let looks = format!(
            "new Promise((done) => {{ const look = () => {{ if ({expression}) done(true); else setTimeout(look, 20); }}; look(); }})"
        );
        self.value(&looks);
    }

    /// Shows an address, and waits until all of it is there.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": "about:blank" }));
        self.call("Page.navigate", &json!({ "url": url }));
        self.until("document.querySelector('#view > *')");
        self.settled();
    }

    /// Waits until nothing is asked for any more.
    pub fn settled(&mut self) {
        self.until("!document.querySelector('[aria-busy=true]')");
        // What has come is drawn with the next frames.
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
    }

    /// Clicks in the middle of what a selector finds first.
    pub fn click(&mut self, selector: &str) {
        self.value(&format!("{}.click() || true", found(selector)));
    }

    /// The place of what a selector finds first, on the screen: left, top, width, height.
    pub fn place(&mut self, selector: &str) -> [f64; 4] {
        let place = self.value(&format!(
            "(() => {{ const one = {}; one.scrollIntoView({{ block: 'center' }}); const r = one.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})()",
            found(selector)
        ));
        [0, 1, 2, 3].map(|at| place[at].as_f64().unwrap())
    }

    pub fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", &event);
    }

    pub fn key(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            // What the browser does by itself at a key goes by its number.
            let number = if key == "Escape" { 27 } else { 0 };
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": number });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// What it complained of: errors that nobody caught, and what it logged as errors.
    pub fn complaints(&self) -> Vec<String> {
        let told = self.events.iter().filter_map(|event| {
            let told = &event["params"];
            let is_error = match event["method"].as_str()? {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => matches!(told["type"].as_str()?, "error" | "warning"),
                "Log.entryAdded" => matches!(told["entry"]["level"].as_str()?, "error" | "warning"),
                _ => false,
            };
            is_error.then(|| told.to_string())
        });
        told.collect()
    }

    /// Addresses that it asked for.
    pub fn requests(&self) -> impl Iterator<Item = &str> {
        let sent =
            self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap())
    }

    /// What stands on the screen as a picture.
    pub fn shot(&mut self, path: &Path) {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let picture = taken["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The whole page as a picture.
    pub fn picture(&mut self, path: &Path) {
        let height =
            self.value("Math.min(4000, document.documentElement.scrollHeight)").as_u64().unwrap();
        let width = self.value("innerWidth").as_u64().unwrap();
        let before = self.value("innerHeight").as_u64().unwrap();
        let size = |length: u64| u32::try_from(length).unwrap();
        self.size(size(width), size(height));
        self.settled();
        self.shot(path);
        self.size(size(width), size(before));
    }
}

/// An expression for what a selector finds first.
fn found(selector: &str) -> String {
    format!("document.querySelector({})", json!(selector))
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

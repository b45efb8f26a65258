//! A real Chromium without a window, led through its debugging protocol: JSON over one WebSocket.
//!
//! It ends with its test: dropping a `Browser` kills it with its children and removes its profile.

#![allow(dead_code, reason = "each test file uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// A browser takes longer to start, and to draw, than anything that we wrote.
const PATIENCE: Duration = Duration::from_secs(180);

/// The names under which it is installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One at a time: a browser keeps two processors busy, and is judged by how fast it shows things.
static ALONE: Mutex<()> = Mutex::new(());

/// A browser with one page.
pub(crate) struct Browser {
    _alone: MutexGuard<'static, ()>,
    child: Child,
    profile: PathBuf,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
    /// What happened and has not been asked for yet.
    events: Vec<Value>,
}

impl Browser {
    /// None, with a word on standard output, where no Chromium is installed.
    pub(crate) fn start() -> Option<Browser> {
        let runs = |name: &&str| {
            let status = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let Some(name) = NAMES.iter().copied().find(|name| runs(name)) else {
            println!("skipped: chromium is not installed");
            return None;
        };
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("threadbare-browser-{}-{nth}", std::process::id()));
        let mut command = Command::new(name);
        command.args(["--headless=new", "--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-gpu"]);
        command.args(["--disable-dev-shm-usage", "--disable-extensions", "--password-store=basic"]);
        // Its sandbox needs a user who is not root; the only page that it is shown is ours.
        command.args(["--no-sandbox", "--force-color-profile=srgb"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let address = debugging_address(&mut child);
        let (socket, _) = tungstenite::connect(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut browser =
            Browser { _alone, child, profile, socket, session: String::new(), last: 0, events: Vec::new() };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let page = browser.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = page["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Says one thing and waits for the answer; fails the test if it is an error.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let asked: String = format!("{method} {parameters}").chars().take(300).collect();
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("no answer to {asked}: {error}"));
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == json!(self.last) {
                assert!(message["error"].is_null(), "{asked}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens a page and returns once it has loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        self.wait_for("document.readyState === 'complete'", "the page has loaded");
    }

    /// What an expression amounts to; a promise is waited for.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let outcome = self.call("Runtime.evaluate", parameters);
        assert!(outcome["exceptionDetails"].is_null(), "{expression}: {}", outcome["exceptionDetails"]);
        outcome["result"]["value"].clone()
    }

    /// The same, if it is text.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is no text but {value}")).to_owned()
    }

    /// The text of the element with this id.
    pub(crate) fn text_of(&mut self, id: &str) -> String {
        self.text(&format!("document.getElementById('{id}').textContent"))
    }

    /// Waits until an expression is true; `what` is the sentence that fails.
    pub(crate) fn wait_for(&mut self, expression: &str, what: &str) -> Duration {
        let begin = Instant::now();
        while self.value(expression) != json!(true) {
            assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?}, and still not: {what}");
            thread::sleep(Duration::from_millis(10));
        }
        begin.elapsed()
    }

    /// A window of this size, with a touch of what its user has set.
    pub(crate) fn look(&mut self, width: u32, height: u32, features: &[(&str, &str)]) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// A key pressed and let go.
    pub(crate) fn press(&mut self, key: &str, text: &str) {
        let code = if text == "\r" { 13 } else { 9 };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({ "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A click at this place of the window.
    pub(crate) fn click(&mut self, x: f64, y: f64) {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// What the window shows, as a PNG in base64.
    pub(crate) fn screenshot(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        picture["data"].as_str().unwrap().to_owned()
    }

    /// Everything that the console has been told since the last time this was asked, but for what is merely said.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let serious = |event: &Value| {
            let parameters = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => true,
                "Log.entryAdded" => parameters["entry"]["level"] != "info" && parameters["entry"]["level"] != "verbose",
                "Runtime.consoleAPICalled" => parameters["type"] == "error" || parameters["type"] == "warning",
                _ => false,
            }
        };
        self.value("0"); // what was said before this has come when this is answered
        self.events.iter().filter(|event| serious(event)).map(|event| event["params"].to_string()).collect()
    }

    /// Every address that has been asked for something.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.value("0");
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }
}

/// Where it may be spoken to: it says so among other things on standard error.
fn debugging_address(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    let address = loop {
        let Some(Ok(line)) = lines.next() else { panic!("chromium has ended: {said}") };
        if let Some((_, address)) = line.split_once("DevTools listening on ") {
            break address.trim().to_owned();
        }
        said += &line;
    };
    // Ends when the browser does.
    thread::spawn(move || lines.for_each(drop));
    address
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        // Its children die a moment later, and may still be writing.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir_all(&self.profile).is_err() && self.profile.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

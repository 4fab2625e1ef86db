//! A headless Chromium, driven over WebDriver: chromedriver's HTTP, as the W3C describes it, and nothing else.

use crate::support::client::{Answer, Connection, Request};
use crate::support::ports::free_port;
use crate::support::program::Program;
use crate::support::scratch::Scratch;
use crate::support::wait;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::process::Command;

/// An open page.
pub(crate) struct Browser {
    session: String,
    port: u16,
    /// Ends after the session; its folder for temporary files after it.
    driver: Program,
    _folder: Scratch,
}

impl Browser {
    /// A browser that reaches nobody but this machine.
    pub(crate) fn start() -> Self {
        let (port, folder) = (free_port(), Scratch::new());
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).env("TMPDIR", folder.path()).env("HOME", folder.path());
        let mut driver = Program::start("chromedriver", command);
        wait::until("chromedriver listens", wait::SOON, || {
            assert!(driver.running(), "chromedriver ended: {}{}", driver.stdout(), driver.stderr());
            wait::connectable((Ipv4Addr::LOCALHOST, port).into())
        });
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let mut browser = Self { session: String::new(), port, driver, _folder: folder };
        let made = browser.ask("/session", &wanted);
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        browser
    }

    /// Opens an address, in a window of this size and with these colours.
    pub(crate) fn open(&self, url: &str, width: u32, colours: &str) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": colours }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
        let mobile = width < 600;
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        self.post("/url", &json!({ "url": url }));
    }

    /// Sends a name and a password with every request from now on, as a user does who was asked for them.
    pub(crate) fn sign_in(&self, credentials: &str) {
        self.devtools("Network.enable", &json!({}));
        let header = json!({ "Authorization": format!("Basic {credentials}") });
        self.devtools("Network.setExtraHTTPHeaders", &json!({ "headers": header }));
    }

    /// What a function body returns in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Asks the page again and again until it says yes.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression})");
        wait::until(what, wait::SOON, || self.run(&script) == Value::Bool(true));
    }

    /// Clicks on what a selector finds, as a mouse does: it has to be in sight and not covered.
    pub(crate) fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str).expect("an element");
        self.post(&format!("/element/{id}/click"), &json!({}));
    }

    /// Presses keys one after another; WebDriver's code points stand for those without a character.
    pub(crate) fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] }));
    }

    /// Lines of the console that are errors or warnings.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let lines = self.post("/se/log", &json!({ "type": "browser" }));
        let bad = |line: &&Value| line["level"] == "SEVERE" || line["level"] == "WARNING";
        lines.as_array().expect("lines").iter().filter(bad).map(|line| line["message"].to_string()).collect()
    }

    /// The addresses the page has asked for since this was asked last.
    pub(crate) fn requests(&self) -> Vec<String> {
        let lines = self.post("/se/log", &json!({ "type": "performance" }));
        let event = |line: &Value| serde_json::from_str::<Value>(line["message"].as_str()?).ok();
        let events = lines.as_array().expect("lines").iter().filter_map(event);
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["message"]["params"]["request"]["url"].as_str().map(ToOwned::to_owned)).collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask(&format!("{}{path}", self.session), body)
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.exchange(Request::post(path, "application/json", body.to_string()));
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, 200, "{path}: {}", told["value"]["message"]);
        told["value"].clone()
    }

    fn exchange(&self, request: Request) -> Answer {
        Connection::open(self.port).ask(&request.header("Connection", "close"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; without one it has not been started.
        if self.driver.running() && !self.session.is_empty() {
            self.exchange(Request::new("DELETE", &self.session));
        }
    }
}

//! What a page has requested, and what it has written to the console.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Browser;

/// A request of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// The body, or an empty text.
    pub body: String,
    /// The headers that the page has set, by their names.
    pub headers: Value,
}

/// What has happened in a browser since the last look.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// The requests, in their order.
    pub requests: Vec<Request>,
    /// The bytes of all answers, with their headers.
    pub received: u64,
    /// Errors and warnings on the console: exceptions, failed requests, violations of the Content-Security-Policy.
    pub console: Vec<String>,
}

impl Browser {
    /// Returns what has happened since the last call, and forgets it.
    pub fn events(&self) -> Result<Events> {
        let mut events = Events::default();
        for entry in self.log("performance")? {
            let text = entry["message"].as_str().context("no message")?;
            events.add(&serde_json::from_str::<Value>(text)?["message"]);
        }
        for entry in self.log("browser")? {
            if entry["level"] == "SEVERE" || entry["level"] == "WARNING" {
                events.console.push(entry["message"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(events)
    }

    fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.driver.post("se/log", &json!({"type": kind}))?;
        Ok(entries.as_array().context("no list")?.clone())
    }
}

impl Events {
    /// Adds an event of the Chrome DevTools Protocol. Chromium's own pages do not count.
    fn add(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let request = &parameters["request"];
                let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
                let headers = request["headers"].clone();
                let request =
                    Request { method: text("method"), url: text("url"), body: text("postData"), headers };
                if !request.url.starts_with("chrome") && !request.url.starts_with("data:") {
                    self.requests.push(request);
                }
            }
            Some("Network.loadingFinished") => {
                // A number with a fraction in the protocol, although it counts bytes.
                let length = parameters["encodedDataLength"].to_string();
                let whole = length.split('.').next().unwrap_or_default();
                self.received += whole.parse::<u64>().unwrap_or_default();
            }
            _ => {}
        }
    }
}

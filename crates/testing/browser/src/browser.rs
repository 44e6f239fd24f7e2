//! One tab of a browser.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::driver::Driver;

/// Maximum time for something to appear on a page. The machine may be very busy.
const WAIT_LIMIT: Duration = Duration::from_secs(40);

/// Attempts to click on an element that a page replaces again and again.
const CLICKS: usize = 20;

/// The colours that the user prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on a light background.
    Light,
    /// Light text on a dark background.
    Dark,
}

/// A headless Chromium with an empty profile and one tab. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    pub(crate) driver: Driver,
}

impl Browser {
    /// Starts a browser of 1280×800 pixels in light colours.
    pub fn start() -> Result<Self> {
        let browser = Self { driver: Driver::start()? };
        browser.resize(1280, 800)?;
        browser.prefer(Scheme::Light)?;
        Ok(browser)
    }

    /// Opens a page, and waits until its document and scripts are loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.driver.post("url", &json!({"url": url})).with_context(|| format!("opening {url}"))?;
        Ok(())
    }

    /// Loads the page again.
    pub fn reload(&self) -> Result<()> {
        self.driver.post("refresh", &json!({}))?;
        Ok(())
    }

    /// The URL in the address bar.
    pub fn url(&self) -> Result<String> {
        Ok(self.driver.get("url")?.as_str().context("no URL")?.to_owned())
    }

    /// Calls a function with the body `script` in the page, and returns its result. A promise is awaited.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.run_with(script, &[])
    }

    /// As [`Browser::run`] with `arguments`.
    pub fn run_with(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        let body = json!({"script": script, "args": arguments});
        self.driver.post("execute/sync", &body).with_context(|| format!("running {script}"))
    }

    /// Runs a script in each page that is opened from now on, before the page's own.
    pub fn run_first(&self, script: &str) -> Result<()> {
        self.driver.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({"source": script}))?;
        Ok(())
    }

    /// Waits until `script` returns a value that JavaScript takes for true, and returns it. `event` is for the error.
    pub fn wait_for(&self, event: &str, script: &str) -> Result<Value> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let value = self.run(script)?;
            let is_false = matches!(&value, Value::Null | Value::Bool(false)) || value == "" || value == 0;
            if !is_false {
                return Ok(value);
            }
            if Instant::now() > deadline {
                let text = self.text("body").unwrap_or_default();
                bail!("not within {WAIT_LIMIT:?}: {event}; the page shows\n{text}");
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the visible text of the first element that matches a CSS selector contains `text`. Letter case is
    /// ignored, because styles can change it.
    pub fn wait_for_text(&self, selector: &str, text: &str) -> Result<String> {
        let script = format!(
            "const found = document.querySelector({})?.innerText ?? '';
             return found.toLowerCase().includes({}.toLowerCase()) && found;",
            json!(selector),
            json!(text)
        );
        let found = self.wait_for(&format!("{text:?} in {selector}"), &script)?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    }

    /// The visible text of the first element that matches a CSS selector.
    pub fn text(&self, selector: &str) -> Result<String> {
        let text =
            self.run_with("return document.querySelector(arguments[0])?.innerText", &[json!(selector)])?;
        Ok(text.as_str().with_context(|| format!("the page has no {selector}"))?.to_owned())
    }

    /// Clicks on the middle of the first element that matches a CSS selector, as a user does: the element must be visible
    /// and not covered. If the page replaces the element at this moment, the new one is clicked on.
    pub fn click(&self, selector: &str) -> Result<()> {
        let mut attempts = 1;
        loop {
            match self.try_click(selector) {
                Err(error) if attempts < CLICKS && format!("{error:#}").contains("stale element") => {
                    attempts += 1;
                }
                other => return other.with_context(|| format!("clicking on {selector}")),
            }
        }
    }

    fn try_click(&self, selector: &str) -> Result<()> {
        let found = self.driver.post("element", &json!({"using": "css selector", "value": selector}))?;
        let id = found.as_object().and_then(|element| element.values().next()).and_then(Value::as_str);
        let id = id.context("no element")?;
        self.driver.post(&format!("element/{id}/click"), &json!({}))?;
        Ok(())
    }

    /// Sets the size of the page in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.driver.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
        Ok(())
    }

    /// Hides all scroll bars, as touch screens do.
    pub fn hide_scroll_bars(&self) -> Result<()> {
        self.driver.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}))?;
        Ok(())
    }

    /// Sets the colours that the user prefers. Animations are off.
    pub fn prefer(&self, scheme: Scheme) -> Result<()> {
        let value = if scheme == Scheme::Dark { "dark" } else { "light" };
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": value},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.driver.devtools("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }

    /// Adds headers to all requests from now on, as a reverse proxy or the user's login does.
    pub fn set_headers(&self, headers: &Value) -> Result<()> {
        self.driver.devtools("Network.enable", &json!({}))?;
        self.driver.devtools("Network.setExtraHTTPHeaders", &json!({"headers": headers}))?;
        Ok(())
    }

    /// Takes a picture of the visible part of the page (PNG).
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let text = self.driver.get("screenshot")?;
        Ok(BASE64_STANDARD.decode(text.as_str().context("no picture")?)?)
    }
}

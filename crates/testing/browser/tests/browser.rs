//! A real Chromium. Each check must be able to fail.

#![allow(clippy::unwrap_used, reason = "a test")]

use browser::{Browser, Scheme};
use real_orthanc::Orthanc;

/// A page with all faults that the checks look for.
const FAULTY: &str = "data:text/html,<title>x</title>
    <style>input:focus { outline: none }</style>
    <p style='color: %23bbb; background: white'>pale</p>
    <div style='width: 500px'>wide</div>
    <div style='height: 20px; overflow-y: auto'><p style='height: 22px; margin: 0'>few</p></div>
    <input><button onclick='throw 1'>Button</button>
    <script>console.error('broken')</script>";

/// A page without them.
const SOUND: &str = "data:text/html,<html lang=en><title>x</title><main><h1>Title</h1>
    <label>Name <input id=name></label> <a href='%23'>Link</a></main>";

#[test]
fn faults_of_a_page_are_found() {
    let browser = Browser::start().unwrap();
    browser.resize(360, 640).unwrap();
    browser.open(FAULTY).unwrap();
    let violations = browser.violations().unwrap();
    for rule in ["color-contrast", "label", "html-has-lang"] {
        assert!(violations.iter().any(|line| line.starts_with(rule)), "{rule}: {violations:#?}");
    }
    assert!(browser.overflow().unwrap()[0].contains("> 360"));
    assert!(browser.tab_to("input", 3).unwrap());
    assert!(!browser.shows_focus().unwrap());
    browser.click("button").unwrap();
    let console = browser.events().unwrap().console;
    assert!(console.len() == 2 && console[0].contains("broken"), "{console:#?}");
    assert_eq!(browser.events().unwrap().console, [""; 0], "they are forgotten");

    browser.resize(1280, 800).unwrap();
    let bars = browser.overflow().unwrap();
    assert!(bars.len() == 1 && bars[0].contains("few"), "{bars:#?}");

    browser.resize(360, 640).unwrap();
    browser.open(SOUND).unwrap();
    assert_eq!(browser.violations().unwrap(), [""; 0]);
    assert_eq!(browser.overflow().unwrap(), [""; 0]);
    assert!(browser.tab_to("a", 3).unwrap() && browser.shows_focus().unwrap());
    assert_eq!(browser.events().unwrap().console, [""; 0]);
}

#[test]
fn requests_and_settings_are_seen() {
    let orthanc = Orthanc::builder().start().unwrap();
    let browser = Browser::start().unwrap();
    browser.events().unwrap();
    browser.open(&format!("{}/system", orthanc.url())).unwrap();
    let events = browser.events().unwrap();
    assert!(events.requests[0].url.ends_with("/system") && events.requests[0].method == "GET");
    assert!((100..10_000).contains(&events.received), "{}", events.received);
    assert!(browser.wait_for_text("body", "DICOMAET").unwrap().contains("ORTHANC"));

    let is_dark = || browser.run("return matchMedia('(prefers-color-scheme: dark)').matches").unwrap();
    assert_eq!(is_dark(), false);
    browser.prefer(Scheme::Dark).unwrap();
    assert_eq!(is_dark(), true);
    assert!(browser.screenshot().unwrap().starts_with(b"\x89PNG"));
}

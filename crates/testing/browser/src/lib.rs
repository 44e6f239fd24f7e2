//! A headless Chromium for tests and screenshots of the plugins' page, controlled by its WebDriver.
//!
//! ```no_run
//! use browser::Browser;
//!
//! let browser = Browser::start()?;
//! browser.open("http://127.0.0.1:8042/object-storage/app/")?;
//! browser.wait_for("the overview", "return document.querySelector('h1') !== null")?;
//! assert_eq!(browser.violations()?, [""; 0]);
//! # Ok::<(), anyhow::Error>(())
//! ```

#![expect(clippy::missing_errors_doc, reason = "an error fails the test, and says what the browser answered")]

mod accessibility;
mod browser;
mod driver;
mod events;
mod keyboard;

pub use browser::{Browser, Scheme};
pub use events::{Events, Request};

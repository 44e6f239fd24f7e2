//! `cargo xtask screenshots`: the pictures of the page in `docs/images`, from a real Orthanc with a bucket on this machine.
//!
//! Patients are made up. So are the history and the numbers that belong to it, because real ones take hours.

mod archive;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use browser::{Browser, Scheme};

use self::archive::Archive;

/// Largest picture in the documentation, in bytes.
const LIMIT: usize = 150_000;

/// Delay of each request to the bucket, so that a job can be seen at work.
const SLOW: Duration = Duration::from_millis(700);

/// Replaces the answer of `history` by six hours of a hospital, and the numbers of `status` that belong to it.
const HISTORY: &str = include_str!("history.js");

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/images").canonicalize()?;
    let archive = Archive::start()?;
    let pictures = Pictures { browser: Browser::start()?, url: archive.page(), folder };
    pictures.browser.run_first(HISTORY)?;
    pictures.browser.hide_scroll_bars()?;
    pictures.overview()?;
    pictures.study(&archive)?;
    pictures.jobs(&archive)?;
    pictures.report(&archive)?;
    archive.lose_bucket()?;
    pictures.unreachable()?;
    pictures.audit()
}

struct Pictures {
    browser: Browser,
    /// The URL of the page.
    url: String,
    folder: PathBuf,
}

impl Pictures {
    /// Opens a view, and waits until it shows a text.
    fn show(&self, end: &str, text: &str) -> Result<()> {
        self.browser.open("about:blank")?;
        self.browser.open(&format!("{}{end}", self.url))?;
        self.browser.wait_for_text("main", text)?;
        Ok(())
    }

    /// Writes what is visible to a file.
    fn take(&self, name: &str) -> Result<()> {
        let picture = self.browser.screenshot()?;
        let file = self.folder.join(format!("{name}.png"));
        ensure!(picture.len() <= LIMIT, "{} would have {} bytes", file.display(), picture.len());
        fs::write(&file, &picture).with_context(|| format!("writing {}", file.display()))?;
        println!("{} ({} bytes)", file.display(), picture.len());
        Ok(())
    }

    fn overview(&self) -> Result<()> {
        let ready = "return document.querySelectorAll('#charts svg').length > 2";
        for (scheme, width, height, name) in [
            (Scheme::Light, 1280, 800, "overview-light"),
            (Scheme::Dark, 1280, 800, "overview-dark"),
            (Scheme::Light, 360, 740, "overview-narrow"),
        ] {
            self.browser.prefer(scheme)?;
            self.browser.resize(width, height)?;
            self.show("", "waiting for upload")?;
            self.browser.wait_for("the charts", ready)?;
            self.take(name)?;
        }
        self.browser.resize(1280, 800)
    }

    fn study(&self, archive: &Archive) -> Result<()> {
        self.show(&format!("?study={}", archive.divided_study), "waiting for upload")?;
        let ready = "return !document.querySelector('#study').innerText.includes('Looking')";
        self.browser.wait_for("the places", ready)?;
        self.take("study")
    }

    fn jobs(&self, archive: &Archive) -> Result<()> {
        archive.bucket.latency(SLOW);
        let job = archive.verify("size")?;
        self.show("#jobs", "running")?;
        let progress = "document.dispatchEvent(new Event('visibilitychange'));
                        return /Running, [3-9][0-9] %/.test(document.querySelector('#jobs').innerText)";
        self.browser.wait_for("a third of the verification", progress)?;
        self.take("jobs")?;
        archive.bucket.latency(Duration::ZERO);
        archive.wait_for(&job)
    }

    fn report(&self, archive: &Archive) -> Result<()> {
        let job = archive.find_missing_object()?;
        self.show(&format!("#report={job}"), "1 finding")?;
        self.take("report")
    }

    fn audit(&self) -> Result<()> {
        self.show("#security", "audit")?;
        self.browser.click("#run-audit")?;
        self.browser.wait_for("the audit", "return document.querySelector('#audit table') !== null")?;
        self.take("audit")
    }

    fn unreachable(&self) -> Result<()> {
        self.show("", "on the disk only")?;
        self.browser.wait_for("the charts", "return document.querySelectorAll('#charts svg').length > 2")?;
        self.take("unreachable")
    }
}

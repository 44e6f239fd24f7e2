//! Shared parts of the tests of the page.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use browser::{Browser, Events};
use real_orthanc::dicom::Labels;
use real_orthanc::rest::Uploaded;
use real_orthanc::{Process, free_port};
use serde_json::json;
use tempfile::TempDir;

use crate::Cloud;
use crate::orthanc::fixture::{Fixture, slices};

/// The path of the page.
pub(crate) const APP: &str = "/object-storage/app/";

/// The views of the navigation.
pub(crate) const VIEWS: [&str; 5] = ["overview", "studies", "jobs", "reports", "security"];

/// A selector of the element with this `data-testid`.
pub(crate) fn id(name: &str) -> String {
    format!("[data-testid='{name}']")
}

/// A browser that shows the page of one Orthanc.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) browser: Browser,
    /// The URL of Orthanc's root, without a slash at its end.
    root: String,
}

impl Page {
    /// Starts a browser and opens the page of an Orthanc.
    pub(crate) fn open<C: Cloud>(fixture: &Fixture<C>) -> Result<Self> {
        Self::open_at(&format!("http://127.0.0.1:{}", fixture.orthanc.http_port()))
    }

    /// Starts a browser and opens the page of the Orthanc whose root has this URL.
    pub(crate) fn open_at(root: &str) -> Result<Self> {
        Self::open_in(Browser::start()?, root)
    }

    /// Opens the page in a browser that is running.
    pub(crate) fn open_in(browser: Browser, root: &str) -> Result<Self> {
        // Chromium shows a page of its own at first.
        browser.events()?;
        let page = Self { browser, root: root.to_owned() };
        page.show("")?;
        page.wait_for_overview()?;
        Ok(page)
    }

    /// Opens the page with this end of its address, such as `?study=…`.
    pub(crate) fn show(&self, end: &str) -> Result<()> {
        self.browser.open(&format!("{}{APP}{end}", self.root))
    }

    /// Waits until the overview shows the answer of the plugin.
    pub(crate) fn wait_for_overview(&self) -> Result<()> {
        self.browser.wait_for_text(&id("backlog"), "waiting for upload")?;
        Ok(())
    }

    /// Waits for a text that the page shows when it asks Orthanc again, without waiting for the next time: the page also asks
    /// when the user returns to it.
    pub(crate) fn wait_for_news(&self, selector: &str, text: &str) -> Result<String> {
        let script = format!(
            "const found = document.querySelector({})?.innerText ?? '';
             const isThere = found.toLowerCase().includes({}.toLowerCase());
             if (!isThere) document.dispatchEvent(new Event('visibilitychange'));
             return isThere && found;",
            json!(selector),
            json!(text)
        );
        let found = self.browser.wait_for(&format!("{text:?} in {selector}"), &script)?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks on an entry of the navigation and waits until its view is shown.
    pub(crate) fn go(&self, view: &str) -> Result<()> {
        self.browser.click(&format!("{} a[data-view='{view}']", id("navigation")))?;
        let shown = format!("return !document.querySelector(\"{}\").hidden", id(&format!("view-{view}")));
        self.browser.wait_for(&format!("the view {view}"), &shown)?;
        Ok(())
    }

    /// Returns what has happened since the last call. Fails if the page has asked another server, or for a list without
    /// a limit.
    pub(crate) fn events(&self) -> Result<Events> {
        let events = self.browser.events()?;
        for request in &events.requests {
            let path = request.url.strip_prefix(&self.root);
            let path = path.with_context(|| format!("a request to another server: {request:?}"))?;
            // Orthanc keeps at most `JobsHistorySize` jobs.
            let is_list =
                ["/patients", "/studies", "/series", "/instances", "/changes", "/exports"].contains(&path);
            let is_search = path.starts_with("/tools/find") || path.starts_with("/tools/lookup");
            let is_limited = request.body.contains("\"Limit\":");
            ensure!(!is_list && (!is_search || is_limited), "a list without a limit: {request:?}");
        }
        Ok(events)
    }

    /// Fails if something is on the console: an exception, a refused request, a violation of the
    /// Content-Security-Policy.
    pub(crate) fn expect_quiet(&self) -> Result<Events> {
        let events = self.events()?;
        ensure!(events.console.is_empty(), "{:#?}", events.console);
        Ok(events)
    }
}

/// Stores a study of `count` instances with these labels.
pub(crate) fn upload_labelled<C: Cloud>(
    fixture: &Fixture<C>,
    study: u64,
    count: u32,
    labels: &Labels<'_>,
) -> Result<Vec<Uploaded>> {
    let files = slices(study, count)?.into_iter();
    files.map(|file| fixture.rest().upload(&labels.apply(&file)?)).collect()
}

/// nginx in front of an Orthanc, and with a page of its own on another port. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Nginx {
    /// The URL of Orthanc's root behind nginx: a path prefix.
    pub(crate) root: String,
    /// The URL of a web site that has nothing to do with Orthanc.
    pub(crate) other_site: String,
    // Declared in this order: nginx must have ended before its folder is removed.
    _process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of the Orthanc on this port. `other_page` is the only page of the other site.
    pub(crate) fn start(orthanc: u16, other_page: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        fs::write(path.join("index.html"), other_page)?;
        let (port, other) = (free_port()?, free_port()?);
        fs::write(path.join("nginx.conf"), configuration(path, orthanc, port, other))?;
        let log = File::create(path.join("nginx.log"))?;
        let configuration = path.join("nginx.conf");
        let configuration =
            configuration.to_str().context("the path of the temporary folder is not UTF-8")?;
        let program = Path::new("/usr/sbin/nginx");
        let process = Process::start(&[], program, &["-c", configuration, "-e", "stderr"], &[], path, &log)?;
        let nginx = Self {
            root: format!("http://127.0.0.1:{port}/hospital/pacs"),
            // Another name makes it another site, and not only another origin.
            other_site: format!("http://localhost:{other}/"),
            _process: process,
            _folder: folder,
        };
        let listens = || std::net::TcpStream::connect(("127.0.0.1", other)).is_ok();
        crate::fixture::eventually("nginx listens", std::time::Duration::from_secs(20), listens)?;
        Ok(nginx)
    }
}

fn configuration(folder: &Path, orthanc: u16, port: u16, other: u16) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
         events {{}}
         http {{
             access_log off; default_type text/html;
             {temporary}
             server {{
                 listen 127.0.0.1:{port};
                 location /hospital/pacs/ {{
                     proxy_pass http://127.0.0.1:{orthanc}/;
                     proxy_set_header Host $http_host;
                 }}
             }}
             server {{ listen 127.0.0.1:{other}; root {folder}; }}
         }}"
    )
}

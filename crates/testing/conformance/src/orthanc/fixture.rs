//! A real Orthanc with the plugin, and the bucket of its storage area.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{BucketServer, Operation, RequestCounts, StoredObject};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client, Orthanc, Proxy, StartError};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{is_attachment, is_summary, library, request, settle, with, within};

/// A real Orthanc with the plugin, and the server of the bucket.
pub(crate) struct Fixture<C> {
    // Declared first, so that Orthanc is dropped before its bucket.
    pub(crate) orthanc: Orthanc,
    pub(crate) bucket: BucketServer,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Fixture<C> {
    /// Combines what was started separately.
    pub(crate) fn new(orthanc: Orthanc, bucket: BucketServer) -> Self {
        Self { orthanc, bucket, cloud: PhantomData }
    }

    /// Starts Orthanc with the required options.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&json!({}))
    }

    /// Starts Orthanc with `changes` of the plugin's section.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::configured(changes, |builder| builder)
    }

    /// Starts Orthanc with changes of the section and of Orthanc's own options.
    pub(crate) fn configured(changes: &Value, orthanc: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let bucket = C::server()?;
        let builder = builder::<C>(&with(C::section(&bucket.endpoint()), changes))?;
        Ok(Self::new(orthanc(builder).start()?, bucket))
    }

    /// Starts Orthanc with a proxy in front of the bucket.
    pub(crate) fn behind_proxy(changes: &Value) -> Result<(Self, Proxy)> {
        let bucket = C::server()?;
        let proxy = Proxy::start(([127, 0, 0, 1], bucket.port()).into())?;
        let orthanc = builder::<C>(&with(C::section(&proxy.endpoint()), changes))?.start()?;
        Ok((Self::new(orthanc, bucket), proxy))
    }

    /// Kills Orthanc, which is faster than stopping it, and starts it with other changes of the section.
    pub(crate) fn start_again_with(&mut self, changes: &Value) -> Result<()> {
        self.orthanc.kill()?;
        self.configure(changes);
        Ok(self.orthanc.start_again()?)
    }

    /// Stops Orthanc and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.orthanc.stop()?;
        Ok(self.orthanc.start_again()?)
    }

    /// Resets Orthanc (`POST /tools/reset`) and waits until it has started.
    pub(crate) fn reset(&self) -> Result<()> {
        let started = || self.orthanc.log().matches("Orthanc has started").count();
        let before = started();
        let answer = self.rest().post("/tools/reset", b"")?;
        ensure!(answer.status == 200, "{}", answer.text());
        let ended = within(Duration::from_secs(30), || started() > before);
        ensure!(ended, "the reset takes too long:\n{}", end_of_log(&self.orthanc));
        Ok(())
    }

    /// Changes the section for the next start.
    pub(crate) fn configure(&mut self, changes: &Value) {
        let section = with(C::section(&self.bucket.endpoint()), changes);
        self.orthanc.configure(|builder| builder.section(C::SECTION, section));
    }

    pub(crate) fn rest(&self) -> &Client {
        self.orthanc.rest()
    }

    /// Waits until the deleted objects are gone.
    pub(crate) fn settle(&self) {
        settle(&self.orthanc.storage_folder());
    }

    /// Returns the names of the objects of attachments, sorted, after all deletions.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.settle();
        self.objects().into_keys().collect()
    }

    /// Returns the objects of attachments.
    pub(crate) fn objects(&self) -> BTreeMap<String, StoredObject> {
        let mut objects = self.bucket.objects(C::BUCKET);
        objects.retain(|key, _| is_attachment(key));
        objects
    }

    /// Returns name and bytes of the only object.
    pub(crate) fn only_object(&self) -> Result<(String, Vec<u8>)> {
        let mut objects = self.objects();
        let (key, object) = objects.pop_first().context("the bucket is empty")?;
        ensure!(objects.is_empty(), "there are more objects: {:?}", objects.keys());
        Ok((key, object.bytes.to_vec()))
    }

    /// Runs `work` and returns its result and the number of its requests, with those for deletions.
    pub(crate) fn counted<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, RequestCounts)> {
        self.bucket.reset_counts();
        let result = work()?;
        self.settle();
        Ok((result, self.bucket.requests()))
    }

    /// Returns the request of a whole read. From 1.12.8, Orthanc asks for the range of all bytes.
    pub(crate) fn whole_read(&self) -> Result<Operation> {
        let has_only_ranges = self.orthanc.version()? >= [1, 12, 8];
        Ok(if has_only_ranges { request::READ_RANGE } else { request::READ })
    }

    /// Returns the plugin's log lines of a level (`E`, `W`, `I`), without their prefix.
    pub(crate) fn log_lines(&self, level: char) -> Vec<String> {
        log_lines::<C>(&self.orthanc.log(), level)
    }

    /// Whether Orthanc's index contains `text`.
    pub(crate) fn is_in_index(&self, text: &str) -> Result<bool> {
        for entry in std::fs::read_dir(self.orthanc.folder().join("index"))? {
            let bytes = std::fs::read(entry?.path())?;
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the builder of an Orthanc with the plugin and this section.
pub(crate) fn builder<C: Cloud>(section: &Value) -> Result<Builder> {
    Ok(Orthanc::builder().plugin(library::<C>()?).section(C::SECTION, section.clone()))
}

/// Returns the log of an Orthanc whose start the plugin has prevented.
pub(crate) fn log_of_refused_start<C: Cloud>(section: &Value) -> Result<String> {
    match builder::<C>(section)?.start() {
        Err(StartError::Exited { log, .. }) => Ok(log),
        Err(other) => Err(other.into()),
        Ok(_) => Err(anyhow!("Orthanc started with {section}")),
    }
}

/// Returns the plugin's lines of a level in a log, without their prefix.
pub(crate) fn log_lines<C: Cloud>(log: &str, level: char) -> Vec<String> {
    let of_level = log.lines().filter(|line| line.starts_with(level));
    // Until 1.12.3, the plugin's name begins the text. Then, it is before the place in the source.
    let (before, after) = (format!("{}: ", C::NAME), format!(" {}:/", C::NAME));
    let texts = of_level.filter_map(|line| {
        let (place, text) = line.split_once("] ")?;
        // In info lines, the category follows the place in the source.
        let text = text.trim_start_matches("(plugins) ");
        if place.contains(&after) { Some(text) } else { text.strip_prefix(&before) }
    });
    texts.filter(|line| !is_summary(line)).map(str::to_owned).collect()
}

/// Returns slices of a series, of about 9 kB each, which differ between studies.
pub(crate) fn slices(study: u64, count: u32) -> Result<Vec<Vec<u8>>> {
    Study(study).ct_series(count, 64, 64).collect::<Result<_, _>>()
}

/// Returns one slice of about 9 kB.
pub(crate) fn slice() -> Result<Vec<u8>> {
    slices(0, 1)?.pop().context("no slice")
}

/// Calls `work` in parallel with the number of each client. Returns the first error, if any.
pub(crate) fn at_once<T: Send>(clients: u64, work: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(move || work(client))).collect();
        let panicked = |_| Err(anyhow!("a client panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    })
}

/// Returns the end of Orthanc's log, for messages of failed tests.
fn end_of_log(orthanc: &Orthanc) -> String {
    let log = orthanc.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

//! A bucket, and an Orthanc whose storage area it is.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use end_to_end::dicom::Study;
use end_to_end::workspace::{Profile, plugin_library};
use end_to_end::{Builder, Client, Orthanc, Proxy, StartError};
use serde_json::Value;

use crate::cloud::{self, BUCKET, BucketServer, NAME, RequestCounts, SECTION};

/// A real Orthanc with the plugin, and the bucket behind it.
pub(crate) struct Fixture {
    // Declared first: Orthanc ends before the bucket that it uses.
    pub(crate) orthanc: Orthanc,
    pub(crate) bucket: BucketServer,
}

impl Fixture {
    /// With the section as it is.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&Value::Null)
    }

    /// With `changes` of the plugin's section: options are added or replaced, and left out where they are null.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::configured(changes, |builder| builder)
    }

    /// With changes of the section and of Orthanc's own options.
    pub(crate) fn configured(changes: &Value, orthanc: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let bucket = cloud::server()?;
        let builder = builder(&section(&bucket.endpoint(), changes)?)?;
        Ok(Self { orthanc: orthanc(builder).start()?, bucket })
    }

    /// With a proxy on the way to the bucket.
    pub(crate) fn behind_proxy(changes: &Value) -> Result<(Self, Proxy)> {
        let bucket = cloud::server()?;
        let proxy = Proxy::start(([127, 0, 0, 1], bucket.port()).into())?;
        let orthanc = builder(&section(&proxy.endpoint(), changes)?)?.start()?;
        Ok((Self { orthanc, bucket }, proxy))
    }

    /// Starts Orthanc anew, without the three seconds of an orderly end, with other changes of the section.
    pub(crate) fn start_again_with(&mut self, changes: &Value) -> Result<()> {
        let section = section(&self.bucket.endpoint(), changes)?;
        self.orthanc.kill()?;
        self.orthanc.configure(|builder| builder.section(SECTION, section));
        Ok(self.orthanc.start_again()?)
    }

    pub(crate) fn rest(&self) -> &Client {
        self.orthanc.rest()
    }

    /// Names of all objects, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.bucket.keys(BUCKET)
    }

    /// Name and bytes of the only object.
    pub(crate) fn only_object(&self) -> Result<(String, Vec<u8>)> {
        let mut objects = self.bucket.objects(BUCKET);
        let (key, object) = objects.pop_first().context("the bucket is empty")?;
        ensure!(objects.is_empty(), "there are more objects: {:?}", objects.keys());
        Ok((key, object.bytes.to_vec()))
    }

    /// Runs `work`, and returns what it gave and the requests that it took.
    pub(crate) fn counted<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, RequestCounts)> {
        self.bucket.reset_counts();
        let result = work()?;
        Ok((result, self.bucket.requests()))
    }

    /// The plugin's lines in the log, of a level (`E`, `W`, `I`), without time and place.
    pub(crate) fn log_lines(&self, level: char) -> Vec<String> {
        log_lines(&self.orthanc.log(), level)
    }

    /// Whether Orthanc's index mentions `text`.
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

/// A section for a bucket at `endpoint`, with changes as in [`Fixture::with`].
pub(crate) fn section(endpoint: &str, changes: &Value) -> Result<Value> {
    let mut section = cloud::section(endpoint);
    let options = section.as_object_mut().context("the section is an object")?;
    for (name, value) in changes.as_object().into_iter().flatten() {
        options.insert(name.clone(), value.clone());
    }
    options.retain(|_, value| !value.is_null());
    Ok(section)
}

/// An Orthanc with the plugin and its section.
pub(crate) fn builder(section: &Value) -> Result<Builder> {
    let library = plugin_library(cloud::PLUGIN, Profile::Dev)?;
    Ok(Orthanc::builder().plugin(library).section(SECTION, section.clone()))
}

/// All that an Orthanc logged whose plugin stopped it.
pub(crate) fn log_of_refused_start(section: &Value) -> Result<String> {
    match builder(section)?.start() {
        Err(StartError::Exited { log, .. }) => Ok(log),
        Err(other) => Err(other.into()),
        Ok(_) => Err(anyhow!("Orthanc started with {section}")),
    }
}

/// The plugin's lines of a level in a log, without time and place.
pub(crate) fn log_lines(log: &str, level: char) -> Vec<String> {
    let begin = format!("{NAME}: ");
    let of_level = log.lines().filter(|line| line.starts_with(level));
    // After the place in Orthanc's source comes, in lines at info level, a category: `(plugins)`.
    let texts = of_level.filter_map(|line| Some(line.split_once("] ")?.1));
    texts
        .filter_map(|text| text.trim_start_matches("(plugins) ").strip_prefix(&begin))
        .map(str::to_owned)
        .collect()
}

/// Slices of a series, of about 9 kB each. Different studies have different ones.
pub(crate) fn slices(study: u64, count: u32) -> Result<Vec<Vec<u8>>> {
    Ok(Study(study).ct_series(count, 64, 64).collect::<Result<_, _>>()?)
}

/// One slice of about 9 kB.
pub(crate) fn slice() -> Result<Vec<u8>> {
    slices(0, 1)?.pop().context("no slice")
}

/// Calls `work` in as many threads at once, each with its number. The first error counts.
pub(crate) fn at_once<T: Send>(clients: u64, work: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(move || work(client))).collect();
        let panicked = |_| Err(anyhow!("a client panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    })
}

/// The end of what Orthanc logged, for messages of failed tests.
pub(crate) fn end_of_log(orthanc: &Orthanc) -> String {
    let log = orthanc.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Waits until `condition` holds; `false` when the time is over.
pub(crate) fn within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

//! A bucket, and an Orthanc whose storage area it is.

use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{BucketServer, RequestCounts};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client, Orthanc, Proxy, StartError};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{library, with, within};

/// A real Orthanc with the plugin, and the bucket behind it.
pub(crate) struct Fixture<C> {
    // Declared first: Orthanc ends before the bucket that it uses.
    pub(crate) orthanc: Orthanc,
    pub(crate) bucket: BucketServer,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Fixture<C> {
    /// Of what was started otherwise.
    pub(crate) fn new(orthanc: Orthanc, bucket: BucketServer) -> Self {
        Self { orthanc, bucket, cloud: PhantomData }
    }

    /// With the section as it is.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&json!({}))
    }

    /// With `changes` of the plugin's section: options are added or replaced.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::configured(changes, |builder| builder)
    }

    /// With changes of the section and of Orthanc's own options.
    pub(crate) fn configured(changes: &Value, orthanc: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let bucket = C::server()?;
        let builder = builder::<C>(&with(C::section(&bucket.endpoint()), changes))?;
        Ok(Self::new(orthanc(builder).start()?, bucket))
    }

    /// With a proxy on the way to the bucket.
    pub(crate) fn behind_proxy(changes: &Value) -> Result<(Self, Proxy)> {
        let bucket = C::server()?;
        let proxy = Proxy::start(([127, 0, 0, 1], bucket.port()).into())?;
        let orthanc = builder::<C>(&with(C::section(&proxy.endpoint()), changes))?.start()?;
        Ok((Self::new(orthanc, bucket), proxy))
    }

    /// Starts Orthanc anew, without the three seconds of an orderly end, with other changes of the section.
    pub(crate) fn start_again_with(&mut self, changes: &Value) -> Result<()> {
        self.orthanc.kill()?;
        self.configure(changes);
        Ok(self.orthanc.start_again()?)
    }

    /// Ends Orthanc in order and starts it anew.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.orthanc.stop()?;
        Ok(self.orthanc.start_again()?)
    }

    /// Ends Orthanc in order and starts it anew, with other changes of the section.
    pub(crate) fn restart_with(&mut self, changes: &Value) -> Result<()> {
        self.configure(changes);
        self.restart()
    }

    /// Lets Orthanc end and begin anew in its process, and waits until it has.
    pub(crate) fn reset(&self) -> Result<()> {
        let started = || self.orthanc.log().matches("Orthanc has started").count();
        let before = started();
        let answer = self.rest().post("/tools/reset", b"")?;
        ensure!(answer.status == 200, "{}", answer.text());
        let ended = within(Duration::from_secs(30), || started() > before);
        ensure!(ended, "the reset does not end:\n{}", end_of_log(&self.orthanc));
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

    /// Names of all objects, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.bucket.keys(C::BUCKET)
    }

    /// Name and bytes of the only object.
    pub(crate) fn only_object(&self) -> Result<(String, Vec<u8>)> {
        let mut objects = self.bucket.objects(C::BUCKET);
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
        log_lines::<C>(&self.orthanc.log(), level)
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

/// An Orthanc with the plugin and its section.
pub(crate) fn builder<C: Cloud>(section: &Value) -> Result<Builder> {
    Ok(Orthanc::builder().plugin(library::<C>()?).section(C::SECTION, section.clone()))
}

/// All that an Orthanc logged whose plugin stopped it.
pub(crate) fn log_of_refused_start<C: Cloud>(section: &Value) -> Result<String> {
    match builder::<C>(section)?.start() {
        Err(StartError::Exited { log, .. }) => Ok(log),
        Err(other) => Err(other.into()),
        Ok(_) => Err(anyhow!("Orthanc started with {section}")),
    }
}

/// The plugin's lines of a level in a log, without time and place.
pub(crate) fn log_lines<C: Cloud>(log: &str, level: char) -> Vec<String> {
    let begin = format!("{}: ", C::NAME);
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
fn end_of_log(orthanc: &Orthanc) -> String {
    let log = orthanc.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

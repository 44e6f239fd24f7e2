//! An Orthanc that is compared with others, and where it stores.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fake_cloud::{BucketServer, SharedAzurite};
use real_orthanc::{Builder, Orthanc};

use super::line::Line;
use super::report::Sample;
use super::{Operation, Phase};
use crate::cloud::Cloud;
use crate::{interrupt, load};

const DELETIONS_TIMEOUT: Duration = Duration::from_secs(600);

/// One of the Orthancs that are compared.
pub(super) struct Candidate {
    pub(super) orthanc: Orthanc,
    pub(super) bucket: Bucket,
    /// Orthanc's ids of the instances of the last upload, in the order of the files.
    pub(super) ids: Vec<String>,
}

/// Where a candidate stores.
pub(super) enum Bucket {
    /// In Orthanc's own folder.
    None,
    /// On a server of its own, which counts.
    Fake(Box<Cloud>),
    /// On a server that others use too. Held as long as the candidate runs.
    Azurite(#[expect(dead_code, reason = "dropped last")] Box<Cloud<Rc<SharedAzurite>>>),
}

/// How a plugin is started.
#[derive(Clone, Copy)]
pub(super) struct Setup<'a> {
    /// Its package.
    pub(super) plugin: &'a str,
    /// Another build than that of this source tree.
    pub(super) library: Option<&'a Path>,
    /// The server, if it is not a fake one of its own.
    pub(super) azurite: Option<&'a Rc<SharedAzurite>>,
    /// `HybridMode`.
    pub(super) mode: &'a str,
    /// `A1` or `A2`, or none.
    pub(super) encryption: Option<&'a str>,
    /// The line to a fake server.
    pub(super) line: Option<&'a Line>,
}

impl<'a> Setup<'a> {
    /// The plugin of this source tree with its defaults and a fake server.
    pub(super) fn of(plugin: &'a str) -> Self {
        Self { plugin, library: None, azurite: None, mode: "Disabled", encryption: None, line: None }
    }

    /// Starts an Orthanc with the plugin. `change` adds to Orthanc's configuration.
    pub(super) fn start(self, change: impl FnOnce(Builder) -> Builder) -> Result<Candidate> {
        if let Some(azurite) = self.azurite {
            let mut cloud = Cloud::on_azurite(self.plugin, azurite)?;
            let orthanc = self.orthanc(&mut cloud, change)?;
            return Ok(Candidate { orthanc, bucket: Bucket::Azurite(Box::new(cloud)), ids: Vec::new() });
        }
        let mut cloud = Cloud::start(self.plugin)?;
        let orthanc = self.orthanc(&mut cloud, change)?;
        if let Some(line) = self.line {
            line.lay(&cloud.server);
        }
        Ok(Candidate::on(orthanc, cloud))
    }

    fn orthanc<S>(self, cloud: &mut Cloud<S>, change: impl FnOnce(Builder) -> Builder) -> Result<Orthanc> {
        cloud.set("HybridMode", self.mode);
        if let Some(file) = self.library {
            cloud.use_library(file);
        }
        let orthanc = change(cloud.builder(self.encryption)?).start()?;
        if let Some(file) = self.library {
            // A plugin without its section of the configuration disables itself, and Orthanc uses its own folder.
            let is_used = !orthanc.rest().get_json("/system")?["StorageAreaPlugin"].is_null();
            ensure!(is_used, "{} is not a build of the plugin {}", file.display(), self.plugin);
        }
        Ok(orthanc)
    }
}

impl Candidate {
    /// Orthanc's own file storage. `change` adds to Orthanc's configuration.
    pub(super) fn built_in(change: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let orthanc = change(Orthanc::builder()).start()?;
        Ok(Self { orthanc, bucket: Bucket::None, ids: Vec::new() })
    }

    /// An Orthanc that stores on a server of its own.
    pub(super) fn on(orthanc: Orthanc, cloud: Cloud) -> Self {
        Self { orthanc, bucket: Bucket::Fake(Box::new(cloud)), ids: Vec::new() }
    }

    /// The server of its own.
    pub(super) fn server(&self) -> Option<&BucketServer> {
        match &self.bucket {
            Bucket::Fake(cloud) => Some(&cloud.server),
            Bucket::None | Bucket::Azurite(_) => None,
        }
    }

    /// Whether it stores with a plugin.
    pub(super) fn has_plugin(&self) -> bool {
        !matches!(self.bucket, Bucket::None)
    }

    /// Requests and connections to the server so far, if they are counted.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        let server = self.server()?;
        Some(Traffic { requests: server.requests().total, connections: server.connections_accepted() })
    }

    /// Measures what `work` does to Orthanc. `work` returns how long it took.
    pub(super) fn measure<T>(
        &self,
        operations: usize,
        bytes: usize,
        work: impl FnOnce() -> Result<(Duration, T)>,
    ) -> Result<(Sample, T)> {
        self.orthanc.reset_peak_memory()?;
        let cpu_before = self.orthanc.cpu_seconds()?;
        let traffic_before = self.traffic();
        let (time, result) = work()?;
        let sample = Sample {
            operations,
            bytes,
            seconds: time.as_secs_f64(),
            cpu_seconds: self.orthanc.cpu_seconds()? - cpu_before,
            peak_memory: self.orthanc.peak_memory_bytes()?,
            traffic: Traffic::between(traffic_before, self.traffic()),
        };
        Ok((sample, result))
    }

    /// Waits until everything stored is in the bucket, in the mode `WriteBack`. Returns the CPU time of Orthanc in
    /// seconds.
    pub(super) fn flush(&self) -> Result<f64> {
        interrupt::check()?;
        if !self.has_plugin() {
            return Ok(0.0);
        }
        let cpu_before = self.orthanc.cpu_seconds()?;
        self.orthanc.rest().post("/object-storage/flush", b"")?.ok()?;
        Ok(self.orthanc.cpu_seconds()? - cpu_before)
    }

    /// Waits until the plugin has deleted everything that Orthanc has deleted.
    pub(super) fn finish_deletions(&self) -> Result<()> {
        interrupt::check()?;
        let rest = self.orthanc.rest();
        let status = rest.get("/object-storage/status")?;
        // Orthanc's own storage, and older builds of a plugin, delete before Orthanc goes on.
        let deletes_later = status.status != 404 && !status.ok()?.json()?["Deletions"].is_null();
        if deletes_later { rest.wait_for_deletions(DELETIONS_TIMEOUT) } else { Ok(()) }
    }

    /// Runs a part of a phase and measures it: `files`, which begin at number `offset` of their set.
    pub(super) fn run(&mut self, phase: &Phase, files: &[Vec<u8>], offset: usize) -> Result<Sample> {
        let known = self.ids.get(offset..).unwrap_or_default();
        let operations = files.len() * phase.passes();
        let bytes = files.iter().map(Vec::len).sum::<usize>() * phase.passes();
        let job = |client: &mut load::Connection, index: usize| {
            interrupt::check()?;
            let index = index % files.len();
            match phase.operation {
                Operation::Upload => {
                    let answer = client.upload(&files[index])?;
                    ensure!(answer["Status"] == "Success", "upload: {answer}");
                    return Ok(answer["ID"].as_str().context("upload: no id")?.to_owned());
                }
                Operation::Read => client.read(&known[index], &files[index])?,
                Operation::Delete => client.delete(&known[index])?,
            }
            Ok(String::new())
        };
        let work = || load::run(self.orthanc.http_port(), phase.clients, operations, job);
        let (sample, ids) = self.measure(operations, bytes, work).context(phase.name)?;
        if phase.operation == Operation::Upload {
            self.ids.truncate(offset);
            self.ids.extend(ids);
        }
        Ok(sample)
    }
}

/// What a server counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// To the bucket.
    pub(super) requests: u64,
    /// Connections to the bucket that were opened.
    pub(super) connections: u64,
}

impl Traffic {
    /// What was counted after `before` until `now`.
    pub(super) fn between(before: Option<Self>, now: Option<Self>) -> Option<Self> {
        let before = before?;
        let now = now?;
        let requests = now.requests - before.requests;
        Some(Self { requests, connections: now.connections - before.connections })
    }

    /// Both together. What was not counted adds nothing.
    pub(super) fn sum(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
        let requests = one.requests + other.requests;
        Some(Self { requests, connections: one.connections + other.connections })
    }
}

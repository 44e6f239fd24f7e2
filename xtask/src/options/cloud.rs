//! Options of `cargo xtask bench --cloud`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::ValueExt;

/// A choice of the command line.
pub trait Choice: Copy + PartialEq + 'static {
    /// All choices, in the order of the tables.
    const ALL: &'static [Self];

    /// Its name on the command line.
    fn name(self) -> &'static str;
}

/// A study with the numbers of files and bytes with which the C++ plugins' authors measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// 8 files, 853 MB.
    Mammo,
    /// 26 files, 251 MB.
    Cardio,
    /// 1,635 files, 356 MB.
    Onco,
}

impl Choice for Workload {
    const ALL: &'static [Self] = &[Self::Mammo, Self::Cardio, Self::Onco];

    fn name(self) -> &'static str {
        match self {
            Self::Mammo => "mammo",
            Self::Cardio => "cardio",
            Self::Onco => "onco",
        }
    }
}

/// Where an Orthanc keeps its files, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Orthanc's own folder.
    BuiltIn,
    /// The bucket, without client-side encryption.
    Clear,
    /// The bucket, encrypted with A1.
    A1,
    /// The bucket, encrypted with A2.
    A2,
    /// The mode `WriteBack`, without client-side encryption.
    WriteBack,
}

impl Choice for Storage {
    const ALL: &'static [Self] = &[Self::BuiltIn, Self::Clear, Self::A1, Self::A2, Self::WriteBack];

    fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Clear => "clear",
            Self::A1 => "A1",
            Self::A2 => "A2",
            Self::WriteBack => "write-back",
        }
    }
}

/// A way in which a study gets into or out of Orthanc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// `POST /instances` for each file.
    Upload,
    /// `GET /instances/{id}/file` for each file.
    Download,
    /// All files in one DICOM association.
    CStore,
    /// `GET /studies/{id}/archive`.
    Archive,
    /// `GET /dicom-web/studies/{uid}/metadata`.
    Metadata,
}

impl Choice for Transfer {
    const ALL: &'static [Self] = &[Self::Upload, Self::Download, Self::CStore, Self::Archive, Self::Metadata];

    fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::CStore => "c-store",
            Self::Archive => "archive",
            Self::Metadata => "metadata",
        }
    }
}

/// What is measured, and on what line to the bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudBench {
    /// From a request to the first byte of its answer.
    pub latency: Duration,
    /// Bytes per second in each direction of each connection; 0 for any number.
    pub bandwidth: u64,
    /// Share of the requests whose answer needs a retransmission.
    pub loss: f64,
    /// The studies.
    pub workloads: Vec<Workload>,
    /// The storages.
    pub storages: Vec<Storage>,
    /// The transfers.
    pub transfers: Vec<Transfer>,
    /// Numbers of simultaneous clients for uploads and downloads.
    pub clients: Vec<usize>,
    /// The folder for the charts.
    pub charts: Option<PathBuf>,
}

impl Default for CloudBench {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            bandwidth: 80_000_000,
            loss: 0.0,
            workloads: Workload::ALL.to_vec(),
            storages: Storage::ALL.to_vec(),
            transfers: Transfer::ALL.to_vec(),
            clients: vec![1, 10],
            charts: None,
        }
    }
}

/// The names of the options, without dashes.
pub(super) const OPTIONS: [&str; 8] =
    ["latency", "bandwidth", "loss", "workload", "storage", "transfer", "clients", "charts"];

/// Those that describe the line to the bucket.
pub(super) const LINE: [&str; 3] = ["latency", "bandwidth", "loss"];

impl CloudBench {
    /// Sets one of [`OPTIONS`].
    pub(super) fn set(&mut self, option: &str, value: OsString) -> Result<()> {
        match option {
            "latency" => self.latency = Duration::from_millis(value.parse()?),
            "bandwidth" => self.bandwidth = megabytes(&value.string()?)?,
            "loss" => self.loss = share(&value.string()?)?,
            "workload" => self.workloads = choices("--workload", &value.string()?)?,
            "storage" => self.storages = choices("--storage", &value.string()?)?,
            "transfer" => self.transfers = choices("--transfer", &value.string()?)?,
            "clients" => self.clients = clients(&value.string()?)?,
            "charts" => self.charts = Some(value.into()),
            other => bail!("unknown option --{other}"),
        }
        Ok(())
    }
}

/// The choices that a list with commas names, in their own order.
fn choices<T: Choice>(option: &str, list: &str) -> Result<Vec<T>> {
    let names: Vec<&str> = list.split(',').collect();
    for name in &names {
        if !T::ALL.iter().any(|choice| choice.name().eq_ignore_ascii_case(name)) {
            let known: Vec<_> = T::ALL.iter().map(|choice| choice.name()).collect();
            bail!("{option} must be a list of {}, got {name}", known.join(", "));
        }
    }
    let is_named = |choice: &T| names.iter().any(|name| choice.name().eq_ignore_ascii_case(name));
    Ok(T::ALL.iter().copied().filter(is_named).collect())
}

fn clients(list: &str) -> Result<Vec<usize>> {
    let wrong = || format!("--clients must be a list of numbers, got {list}");
    let mut numbers: Vec<usize> =
        list.split(',').map(str::parse).collect::<Result<_, _>>().with_context(wrong)?;
    ensure!(!numbers.contains(&0), "--clients must be at least 1");
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Bytes per second, from MB/s.
fn megabytes(text: &str) -> Result<u64> {
    let wrong = || format!("--bandwidth must be a whole number of MB/s, or 0 for no limit, got {text}");
    let megabytes: u64 = text.parse().with_context(wrong)?;
    megabytes.checked_mul(1_000_000).with_context(wrong)
}

fn share(text: &str) -> Result<f64> {
    let share: f64 = text.parse().with_context(|| format!("--loss must be a number, got {text}"))?;
    ensure!((0.0..=1.0).contains(&share), "--loss must be a share of the requests from 0 to 1, got {text}");
    Ok(share)
}

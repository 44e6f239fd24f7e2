//! `cargo xtask bench --reading`: Orthanc's options for reading the files of a study at once, 20 ms from the bucket.
//!
//! The latency dominates, so that seconds are meaningful, not only their ratios. Orthanc is restarted with each set of
//! options in every round.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client, Orthanc, plugin_of_debian};
use serde_json::Value;
use xtask::options::Bench;

use super::report::{highest, lowest, median};
use crate::cloud::Cloud;
use crate::{interrupt, load};

const LATENCY: Duration = Duration::from_millis(20);
/// Rows and columns of an instance of 9 kB: with larger ones, Orthanc's compression takes longer than the latency.
const SIDE: u16 = 64;
const TIMEOUT: Duration = Duration::from_secs(600);
/// Of the system whose Orthanc is started.
pub(super) const DICOMWEB: &str = "libOrthancDicomWeb.so";

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The ZIP archive of a study.
    Archive,
    /// DICOMweb's metadata of a study.
    Metadata,
    /// The same once more, since the plugin may have stored its answer.
    MetadataAgain,
    /// DICOMweb's retrieval of a study (WADO-RS).
    Retrieval,
}

impl Question {
    fn instances(self) -> u32 {
        if self == Self::Archive { 1635 } else { 900 }
    }

    fn text(self) -> String {
        let what = match self {
            Self::Archive => "archive",
            Self::Metadata => "DICOMweb metadata",
            Self::MetadataAgain => "DICOMweb metadata, second request",
            Self::Retrieval => "DICOMweb retrieval",
        };
        format!("{what} of {}", self.instances())
    }

    /// Whether an answer has all instances.
    fn is_complete(self, body: &[u8]) -> Result<bool> {
        let count = match self {
            Self::Archive => entries(body).context("the answer is not an archive")?,
            Self::Metadata | Self::MetadataAgain => described(body)?,
            Self::Retrieval => body.windows(SEPARATOR.len()).filter(|bytes| *bytes == SEPARATOR).count(),
        };
        Ok(count == usize::try_from(self.instances())?)
    }
}

/// The number of instances in an answer of DICOMweb with metadata.
pub(super) fn described(body: &[u8]) -> Result<usize> {
    Ok(serde_json::from_slice::<Value>(body)?.as_array().map_or(0, Vec::len))
}

/// The number of entries in a ZIP file, which its last record has.
pub(super) fn entries(body: &[u8]) -> Option<usize> {
    let start = body.windows(4).rposition(|bytes| bytes == b"PK\x05\x06")?;
    let count = body.get(start + 10..)?.first_chunk()?;
    Some(u16::from_le_bytes(*count).into())
}

/// Precedes each file of a retrieval.
const SEPARATOR: &[u8] = b"Content-Type: application/dicom";

/// Options of Orthanc, and the first version of Orthanc that they are measured with.
struct Setting {
    question: Question,
    since: [u32; 3],
    options: &'static str,
}

const fn setting(question: Question, since: [u32; 3], options: &'static str) -> Setting {
    Setting { question, since, options }
}

/// Orthanc 1.10.1 crashes or hangs with `ZipLoaderThreads`, also with its own storage.
const ZIP_LOADER_THREADS: [u32; 3] = [1, 12, 0];

/// The first setting of each question is what the others are compared with.
const SETTINGS: [Setting; 16] = {
    use Question::{Archive, Metadata, MetadataAgain, Retrieval};
    [
        setting(Archive, [0; 3], "{}"),
        setting(Archive, ZIP_LOADER_THREADS, r#"{"ZipLoaderThreads": 8}"#),
        setting(Archive, ZIP_LOADER_THREADS, r#"{"ZipLoaderThreads": 20}"#),
        setting(Archive, [1, 13, 0], r#"{"StorageLoaderThreadsCount": 20}"#),
        setting(Archive, [1, 13, 0], r#"{"SequentialDicomReaderWindowSize": 20}"#),
        setting(
            Archive,
            [1, 13, 0],
            r#"{"StorageLoaderThreadsCount": 20, "SequentialDicomReaderWindowSize": 20}"#,
        ),
        setting(Metadata, [0; 3], r#"{"DicomWeb": {"EnableMetadataCache": false}}"#),
        setting(
            Metadata,
            [1, 12, 0],
            r#"{"DicomWeb": {"EnableMetadataCache": false, "MetadataWorkerThreadsCount": 20}}"#,
        ),
        setting(
            Metadata,
            [1, 13, 0],
            r#"{"StorageLoaderThreadsCount": 20, "DicomParserThreadsCount": 20, "DicomWeb": {"EnableMetadataCache": false}}"#,
        ),
        setting(
            Metadata,
            [1, 13, 0],
            r#"{"DicomParserThreadsCount": 20, "DicomWeb": {"EnableMetadataCache": false, "MetadataWorkerThreadsCount": 20}}"#,
        ),
        setting(
            Metadata,
            [1, 13, 0],
            r#"{"StorageLoaderThreadsCount": 20, "DicomParserThreadsCount": 20, "DicomWeb": {"EnableMetadataCache": false, "MetadataWorkerThreadsCount": 20}}"#,
        ),
        setting(
            Metadata,
            [0; 3],
            r#"{"DicomWeb": {"EnableMetadataCache": false, "StudiesMetadata": "MainDicomTags"}}"#,
        ),
        setting(MetadataAgain, [1, 12, 0], r#"{"DicomWeb": {"EnableMetadataCache": true}}"#),
        setting(Retrieval, [0; 3], "{}"),
        setting(Retrieval, [1, 12, 0], r#"{"DicomWeb": {"WadoRsLoaderThreadsCount": 20}}"#),
        setting(
            Retrieval,
            [1, 13, 0],
            r#"{"StorageLoaderThreadsCount": 20, "DicomWeb": {"WadoRsLoaderThreadsCount": 20}}"#,
        ),
    ]
};

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    let cloud = Cloud::start(options.plugin)?;
    // No answer is prepared in the background while another one is measured.
    let base = cloud.builder(None)?.plugin(plugin_of_debian(DICOMWEB)).section("StableAge", 3600);
    let mut orthanc = base.clone().start().with_context(|| format!("starting Orthanc with {DICOMWEB}"))?;
    let version = orthanc.rest().get_json("/system")?["Version"].as_str().unwrap_or_default().to_owned();
    eprintln!("Orthanc {version}: storing two studies");
    let studies = [Question::Archive, Question::Retrieval].map(|question| store(&orthanc, question));
    let [archive, dicomweb] = studies;
    let studies = Studies { archive: archive?, dicomweb: dicomweb? };
    cloud.server.latency(LATENCY);
    let settings: Vec<&Setting> =
        SETTINGS.iter().filter(|setting| parts(&version) >= setting.since).collect();
    let mut samples = vec![Vec::new(); settings.len()];
    for round in 1..=options.rounds {
        for (setting, samples) in settings.iter().zip(&mut samples) {
            interrupt::check()?;
            let sample = measure(setting, &studies, &base, &mut orthanc, &cloud)?;
            eprintln!("round {round}: {}, {}: {sample:?}", setting.question.text(), setting.options);
            samples.push(sample);
        }
    }
    println!("Orthanc {version}, {} rounds\n\n{}", options.rounds, table(&settings, &samples));
    Ok(())
}

/// Two stored studies.
struct Studies {
    /// Orthanc's id.
    archive: String,
    /// The study instance UID.
    dicomweb: String,
}

impl Studies {
    fn path(&self, question: Question) -> String {
        match question {
            Question::Archive => format!("/studies/{}/archive", self.archive),
            Question::Metadata | Question::MetadataAgain => {
                format!("/dicom-web/studies/{}/metadata", self.dicomweb)
            }
            Question::Retrieval => format!("/dicom-web/studies/{}", self.dicomweb),
        }
    }
}

/// Stores the study for a question. Returns Orthanc's id or the UID, whichever the question needs.
fn store(orthanc: &Orthanc, question: Question) -> Result<String> {
    let number = u64::from(question.instances());
    let files = Study(number).ct_series(question.instances(), SIDE, SIDE).collect::<Result<Vec<_>>>()?;
    let (_, answers) =
        load::run(orthanc.http_port(), 4, files.len(), |client, index| client.upload(&files[index]))?;
    let study =
        answers.first().context("no instances")?["ParentStudy"].as_str().context("no study")?.to_owned();
    if question == Question::Archive {
        return Ok(study);
    }
    let study = orthanc.rest().get_json(&format!("/studies/{study}"))?;
    Ok(study["MainDicomTags"]["StudyInstanceUID"].as_str().context("no UID")?.to_owned())
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    /// To the bucket.
    requests: u64,
}

/// Asks an Orthanc that was restarted with the options.
fn measure(
    setting: &Setting,
    studies: &Studies,
    base: &Builder,
    orthanc: &mut Orthanc,
    cloud: &Cloud,
) -> Result<Sample> {
    let options: Value = serde_json::from_str(setting.options).context(setting.options)?;
    let options = options.as_object().context("options must be an object")?;
    let with_options =
        |builder: Builder, (name, value): (&String, &Value)| builder.section(name, value.clone());
    orthanc.configure(|_former| options.iter().fold(base.clone(), with_options));
    orthanc.restart()?;
    let client = Client::with_timeout(orthanc.url(), TIMEOUT);
    let path = studies.path(setting.question);
    if setting.question == Question::MetadataAgain {
        client.get(&path)?.ok()?;
    }
    cloud.server.reset_counts();
    let start = Instant::now();
    let answer = client.get(&path)?.ok()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(setting.question.is_complete(&answer.body)?, "{path}: the answer is not complete");
    Ok(Sample { seconds, requests: cloud.server.requests().total })
}

/// The numbers of a version, such as 1.12.7; zeros for other names, such as `mainline`.
pub(super) fn parts(version: &str) -> [u32; 3] {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
    [(); 3].map(|()| numbers.next().unwrap_or_default())
}

fn table(settings: &[&Setting], samples: &[Vec<Sample>]) -> String {
    let mut text =
        String::from("| | options | seconds: median (range) | requests |\n| --- | --- | ---: | ---: |\n");
    for (setting, samples) in settings.iter().zip(samples) {
        let seconds = || samples.iter().map(|sample| sample.seconds);
        let requests = samples.iter().map(|sample| sample.requests).max().unwrap_or_default();
        text += &format!(
            "| {} | `{}` | {:.1} ({:.1} to {:.1}) | {requests} |\n",
            setting.question.text(),
            setting.options,
            median(seconds()),
            lowest(seconds()),
            highest(seconds()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_valid() {
        let mut former = None;
        for setting in &SETTINGS {
            assert!(
                serde_json::from_str::<Value>(setting.options).unwrap().is_object(),
                "{}",
                setting.options
            );
            let begins = former.replace(setting.question) != Some(setting.question);
            let again = setting.question == Question::MetadataAgain;
            assert!(!begins || again || setting.since == [0; 3], "{}", setting.options);
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parts("1.12.11") >= [1, 12, 7] && parts("1.12.7") < [1, 12, 11]);
        assert_eq!(parts("mainline"), [0; 3]);
    }

    #[test]
    fn incomplete_answers_are_noticed() {
        let archive = |count: u16| {
            [b"PK\x05\x06\0\0\0\0\0\0", &count.to_le_bytes()[..], &[0; 8], &[7, 0], b"Comment"].concat()
        };
        assert!(Question::Archive.is_complete(&archive(1635)).unwrap());
        assert!(!Question::Archive.is_complete(&archive(1634)).unwrap());
        assert!(Question::Archive.is_complete(b"{}").is_err());
        let metadata = json!(vec![json!({}); 900]).to_string();
        assert!(Question::Metadata.is_complete(metadata.as_bytes()).unwrap());
        assert!(!Question::Metadata.is_complete(b"[]").unwrap());
        assert!(Question::Retrieval.is_complete(&SEPARATOR.repeat(900)).unwrap());
        assert!(!Question::Retrieval.is_complete(&SEPARATOR.repeat(899)).unwrap());
    }
}

//! Each sample in the packages and in the documentation, in a real Orthanc with the configuration of its Debian. The tests
//! take the texts as they are: only example values are replaced, and misspelled options are found.

use std::collections::BTreeSet;
use std::fs;
use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::BucketServer;
use rcgen::generate_simple_self_signed;
use real_orthanc::workspace::Plugin;
use real_orthanc::{Builder, Orthanc, Postgres, configuration_of_debian};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, library};
use crate::orthanc::fixture::{log_lines, slice};

tests! {
    EveryCloud:
        packaged_sample_works,
        documented_samples_work;
    OneCloud:
        documented_options_of_orthanc_work,
        misspelled_sample_is_found,
}

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
/// Documents whose JSON without a plugin's section belongs into Debian's own files. In others, it is an answer, for
/// instance.
const ABOUT_ORTHANC: [&str; 2] = ["docs/install.md", "docs/performance.md"];
/// User and password of samples.
const LOGIN: &str = "my-user:my-password";

/// A text that starts Orthanc.
struct Sample {
    /// Where it is.
    place: String,
    text: String,
}

impl Sample {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text)
            .with_context(|| format!("{} is not JSON:\n{}", self.place, self.text))
    }

    /// Whether it is the only file of the configuration. Otherwise, it is a file alongside those of Debian.
    fn is_whole(&self) -> bool {
        self.text.contains("\"Plugins\"")
    }
}

/// Returns the blocks of JSON in the documents for administrators that are objects.
fn documented() -> Result<Vec<Sample>> {
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(Path::new(REPOSITORY).join("docs"))? {
        paths.push(format!("docs/{}", entry?.file_name().to_string_lossy()));
    }
    paths.sort();
    let mut samples = Vec::new();
    for path in paths {
        let document = fs::read_to_string(Path::new(REPOSITORY).join(&path))?;
        for (before, rest) in document.match_indices("```json\n") {
            let text = document[before + rest.len()..].split("```").next().unwrap_or_default().to_owned();
            let line = document[..before].lines().count() + 1;
            let sample = Sample { place: format!("{path}:{line}"), text };
            if sample.json()?.is_object() {
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// Returns the packaged sample with the options of one variant: paragraphs end with an empty comment, and a comment that
/// begins with one blank is prose.
fn packaged<C: Cloud>(left_out: &[&str]) -> Result<Sample> {
    let plugin = Plugin::named(C::PLUGIN)?;
    let path = format!("plugins/{}/{}", plugin.package(), plugin.sample());
    let text = fs::read_to_string(Path::new(REPOSITORY).join(&path))?;
    let is_used =
        |paragraph: &&str| !left_out.iter().any(|option| paragraph.contains(&format!("\"{option}\"")));
    let activated = |line: &str| match line.trim_start().strip_prefix("//") {
        Some(option) if !option.starts_with(' ') || option.starts_with("  ") => option.to_owned(),
        _ => line.to_owned(),
    };
    let paragraphs = text.split("\n  //\n").filter(is_used).flat_map(str::lines).map(activated);
    Ok(Sample {
        place: format!("{path} without {left_out:?}"),
        text: paragraphs.collect::<Vec<_>>().join("\n"),
    })
}

/// The bucket of the samples, and the files that they name.
struct Samples<C> {
    bucket: BucketServer,
    files: Keys,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Samples<C> {
    fn new() -> Result<Self> {
        let files = Keys::new()?;
        for id in 1..=4 {
            files.write(&format!("master-{id}.key"), format!("{}=", id.to_string().repeat(43)))?;
        }
        let authority = generate_simple_self_signed(["authority".to_owned()])?;
        files.write("authority.pem", authority.cert.pem())?;
        Ok(Self { bucket: C::server()?, files, cloud: PhantomData })
    }

    /// Returns a text with values of this machine instead of the example values.
    fn filled_in(&self, text: &str) -> String {
        let values = C::example_values(&self.bucket.endpoint());
        let text = values.iter().fold(text.to_owned(), |text, (example, value)| text.replace(example, value));
        text.replace("/etc/orthanc/", &self.files.path(""))
    }

    fn builder(&self, files: Vec<(String, String)>) -> Result<Builder> {
        let builder = Orthanc::builder().complete_configuration(files).login(LOGIN).plugin(library::<C>()?);
        let credentials = C::credentials_in_environment().into_iter();
        Ok(credentials.fold(builder, |builder, (name, value)| builder.environment(name, value)))
    }

    /// Starts Orthanc with a sample that has the plugin's section.
    fn check(&self, sample: &Sample) -> Result<()> {
        let mut files = if sample.is_whole() { Vec::new() } else { configuration_of_debian()? };
        files.push(("sample.json".to_owned(), self.filled_in(&sample.text)));
        self.stores(files).with_context(|| sample.place.clone())
    }

    /// Stores an instance, finds it in the bucket, and reads it after a restart, since Debian's Orthanc has a cache.
    fn stores(&self, files: Vec<(String, String)>) -> Result<()> {
        let is_set = |option: &str| files.iter().any(|(_, text)| text.contains(&format!("\"{option}\"")));
        let has_encryption = is_set("StorageEncryption");
        let root = if is_set("RootPath") { "orthanc/" } else { "" };
        let keeps_files = is_set("WriteToFileSystem");
        let before: BTreeSet<_> = self.bucket.keys(C::BUCKET).into_iter().collect();
        let mut orthanc = self.builder(files)?.start()?;
        let file = slice()?;
        let uploaded = orthanc.rest().upload(&file)?;
        if keeps_files {
            let body = json!({"Resources": [uploaded.id], "TargetStorage": "object-storage"});
            orthanc.rest().post_json("/move-storage", &body)?.ok()?;
        }
        let keys = self.bucket.keys(C::BUCKET);
        let stored: Vec<_> = keys
            .iter()
            .filter(|key| !before.contains(*key) && !key.contains(".orthanc-object-storage/"))
            .collect();
        ensure!(!stored.is_empty(), "the instance is not in the bucket: {keys:?}\n{}", orthanc.log());
        for key in stored {
            ensure!(key.ends_with(".enc") == has_encryption && key.starts_with(root), "{key}");
        }
        expect_clean_log::<C>(&orthanc.log())?;
        orthanc.kill()?;
        orthanc.start_again()?;
        ensure!(orthanc.rest().file(&uploaded.id)? == file, "the bytes differ");
        Ok(())
    }
}

/// Checks that Orthanc has logged no error, and that the plugin knows all options.
fn expect_clean_log<C: Cloud>(log: &str) -> Result<()> {
    let warnings = log_lines::<C>(log, 'W');
    let unknown = warnings.iter().find(|line| line.contains("unknown option") || line.contains("deprecated"));
    ensure!(unknown.is_none(), "{unknown:?}");
    let error = log.lines().find(|line| line.starts_with('E'));
    ensure!(error.is_none(), "{error:?}");
    Ok(())
}

fn packaged_sample_works<C: Cloud>() -> Result<()> {
    let samples = Samples::<C>::new()?;
    for left_out in C::SAMPLE_VARIANTS {
        samples.check(&packaged::<C>(left_out)?)?;
    }
    Ok(())
}

fn documented_samples_work<C: Cloud>() -> Result<()> {
    let samples = Samples::<C>::new()?;
    let mut count = 0;
    for sample in documented()? {
        if sample.json()?.get(C::SECTION).is_some() {
            samples.check(&sample)?;
            count += 1;
        }
    }
    ensure!(count > 0, "no document has a section for {}", C::NAME);
    Ok(())
}

/// Checks that the table of Debian's options names the file of each one, and has all that samples set.
fn expect_right_table() -> Result<()> {
    let document = fs::read_to_string(Path::new(REPOSITORY).join("docs/install.md"))?;
    let (_, table) = document.split_once("\n| option | Debian's file |").context("no table")?;
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    let row_of = |option: &str| rows.iter().find(|row| row.contains(&format!("`{option}`")));
    let files = configuration_of_debian()?;
    let names_of = |option: &str| {
        let is_set =
            |text: &str| text.lines().any(|line| line.trim_start().starts_with(&format!("\"{option}\"")));
        files.iter().filter(|(_, text)| is_set(text)).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let mut known = 0;
    for option in
        rows.iter().flat_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2))
    {
        for name in names_of(option) {
            let file = row_of(option).and_then(|row| row.split('|').nth(2)).unwrap_or_default();
            ensure!(file.contains(&format!("`{name}`")), "{option} is in {name}, not in {file}");
            known += 1;
        }
    }
    ensure!(known >= 9, "only {known} options are set in Debian's files");
    for sample in documented()? {
        let is_about_orthanc = ABOUT_ORTHANC.iter().any(|path| sample.place.starts_with(path));
        for option in sample.json()?.as_object().into_iter().flatten().map(|(option, _)| option) {
            let is_listed = !is_about_orthanc || sample.is_whole() || names_of(option).is_empty();
            ensure!(is_listed || row_of(option).is_some(), "{}: {option} is not in the table", sample.place);
        }
    }
    Ok(())
}

/// Samples without a plugin's section are changes of Debian's own files, in which their options are usually set already.
fn documented_options_of_orthanc_work<C: Cloud>() -> Result<()> {
    expect_right_table()?;
    let samples = Samples::<C>::new()?;
    let database = Postgres::start()?;
    let sections: Vec<_> = Plugin::all().into_iter().map(Plugin::section).collect();
    let mut count = 0;
    for sample in documented()? {
        let options = sample.json()?;
        let is_about_orthanc = ABOUT_ORTHANC.iter().any(|path| sample.place.starts_with(path));
        if !is_about_orthanc || sections.iter().any(|section| options.get(section).is_some()) {
            continue;
        }
        let mut files = configuration_of_debian()?;
        for option in options.as_object().into_iter().flatten().map(|(option, _)| option) {
            for (_, text) in &mut files {
                *text = text.replace(&format!("\"{option}\""), &format!("\"{option} before the change\""));
            }
        }
        let text = samples.filled_in(&sample.text);
        let text = text.replace("5432", &database.port().to_string()).replace("my-database-user", "postgres");
        files.push(("changes.json".to_owned(), text));
        let section = json!({C::SECTION: C::section(&samples.bucket.endpoint())});
        files.push(("section.json".to_owned(), section.to_string()));
        samples.stores(files).with_context(|| sample.place.clone())?;
        count += 1;
    }
    ensure!(count > 0, "no document has options of Orthanc");
    Ok(())
}

/// The other tests could fail: a misspelled option does not pass.
fn misspelled_sample_is_found<C: Cloud>() -> Result<()> {
    let samples = Samples::<C>::new()?;
    let mut sample = packaged::<C>(C::SAMPLE_VARIANTS[0])?;
    let bucket = format!("\"{}\"", C::BUCKET_OPTION);
    sample.text = sample.text.replace(&bucket, &format!("\"VirtualAdressing\": true, {bucket}"));
    let Err(error) = samples.check(&sample) else { bail!("a misspelled option passes") };
    ensure!(format!("{error:#}").contains("VirtualAdressing"), "{error:#}");
    Ok(())
}

//! Each sample in the packages and in the documentation, in a real Orthanc with the configuration of its Debian. The tests
//! take the texts as they are: only example values are replaced, and misspelled options are found.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::marker::PhantomData;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

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
        faulty_samples_are_found,
}

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
/// The documents with options of Orthanc itself.
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
    /// Returns what Orthanc reads: comments are whole lines.
    fn json(&self) -> Result<Value> {
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let text: String = self.text.lines().filter(|line| !is_comment(line)).collect();
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON:\n{text}", self.place))
    }

    /// Returns the options at the root of the configuration.
    fn options(&self) -> Result<Vec<String>> {
        Ok(self.json()?.as_object().into_iter().flatten().map(|(option, _)| option.clone()).collect())
    }

    fn sets(&self, option: &str) -> Result<bool> {
        Ok(self.json()?.get(option).is_some())
    }

    /// Whether it has only options of Orthanc, which belong into Debian's own files. In other documents, JSON without a
    /// plugin's section is an answer, for instance.
    fn is_about_orthanc(&self) -> Result<bool> {
        let options = self.options()?;
        let has_section =
            Plugin::all().iter().any(|plugin| options.iter().any(|option| option == plugin.section()));
        Ok(!has_section && ABOUT_ORTHANC.iter().any(|path| self.place.starts_with(path)))
    }

    /// Whether it is the only file of the configuration. Otherwise, it is a file alongside those of Debian.
    fn is_whole(&self) -> Result<bool> {
        self.sets("HttpPort")
    }
}

/// Returns the samples in the documents for administrators, and those of containers.
fn documented() -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for path in ["ci/docker/compose.yml", "ci/kubernetes/orthanc.yaml"] {
        let text = configuration_of_container(&fs::read_to_string(Path::new(REPOSITORY).join(path))?)?;
        samples.push(Sample { place: path.to_owned(), text });
    }
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(Path::new(REPOSITORY).join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    for path in paths {
        let document = fs::read_to_string(Path::new(REPOSITORY).join(&path))?;
        for (before, fence) in document.match_indices("```") {
            let (language, block) = document[before + fence.len()..].split_once('\n').unwrap_or_default();
            let block = block.split("```").next().unwrap_or_default();
            let text = match language {
                "json" => block.to_owned(),
                "yaml" => configuration_of_container(block)?,
                _ => continue,
            };
            let place = format!("{path}:{}", document[..before].lines().count() + 1);
            samples.push(Sample { place, text });
        }
    }
    Ok(samples)
}

/// Returns the samples that have only options of Orthanc.
fn documented_options() -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for sample in documented()? {
        if sample.is_about_orthanc()? {
            samples.push(sample);
        }
    }
    ensure!(!samples.is_empty(), "no document has options of Orthanc");
    Ok(samples)
}

/// Returns the configuration that our image makes of the variables and secrets in a text.
fn configuration_of_container(text: &str) -> Result<String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(": "));
    let variables = pairs.filter(|(name, _)| name.starts_with("ORTHANC__"));
    // Only the manifest for Kubernetes has its examples in angle brackets.
    let value = |text: &str| text.trim_matches(['\'', '"']).replace(['<', '>'], "");
    let users = LOGIN.split_once(':').map(|(user, password)| json!({user: password}).to_string());
    let secrets = json!({"users": users, "access-key": "my-access-key", "secret-key": "my-secret-key"});
    let mut file = tempfile::NamedTempFile::new()?;
    write!(file, "{secrets}")?;
    let output = Command::new("jq")
        .args(["--slurp", "--from-file"])
        .args([&Path::new(REPOSITORY).join("ci/docker/environment.jq"), file.path()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        // The defaults, so that they can be replaced.
        .envs([("ORTHANC__NAME", "Orthanc"), ("ORTHANC__HTTP_PORT", "8042"), ("ORTHANC__DICOM_PORT", "4242")])
        .envs(variables.map(|(name, text)| (name, value(text))))
        .output()
        .context("starting jq")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
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
    fn filled_in(&self, text: &str, database: Option<&Postgres>) -> String {
        let mut values = C::example_values(&self.bucket.endpoint());
        for folder in ["/etc/orthanc/", "/etc/orthanc-keys/", "/run/secrets/"] {
            values.push((folder, self.files.path("")));
        }
        if let Some(database) = database {
            let host = format!(r#""127.0.0.1", "Port": {}"#, database.port());
            values.extend([(r#""postgresql.example.org""#, host.clone()), (r#""index""#, host)]);
            values.push(("my-database-user", "postgres".to_owned()));
        }
        values.iter().fold(text.to_owned(), |text, (example, value)| text.replace(example, value))
    }

    fn builder(&self, files: Vec<(String, String)>) -> Result<Builder> {
        let builder = Orthanc::builder().complete_configuration(files).login(LOGIN).plugin(library::<C>()?);
        let credentials = C::credentials_in_environment().into_iter();
        Ok(credentials.fold(builder, |builder, (name, value)| builder.environment(name, value)))
    }

    /// Starts Orthanc with a sample. One without the plugin's section changes Debian's own files, which have most of its
    /// options already.
    fn check(&self, sample: &Sample) -> Result<()> {
        let mut files = if sample.is_whole()? { Vec::new() } else { configuration_of_debian()? };
        if !sample.sets(C::SECTION)? {
            for option in sample.options()? {
                for (_, text) in &mut files {
                    *text =
                        text.replace(&format!("\"{option}\""), &format!("\"{option} before the change\""));
                }
            }
            let section = json!({C::SECTION: C::section(&self.bucket.endpoint())});
            files.push(("section.json".to_owned(), section.to_string()));
        }
        let database = sample.sets("PostgreSQL")?.then(Postgres::start).transpose()?;
        files.push(("sample.json".to_owned(), self.filled_in(&sample.text, database.as_ref())));
        self.stores(files).with_context(|| sample.place.clone())
    }

    /// Stores an instance, finds it in the bucket, and reads it after a restart, since Debian's Orthanc has a cache.
    fn stores(&self, files: Vec<(String, String)>) -> Result<()> {
        let is_set = |option: &str| files.iter().any(|(_, text)| text.contains(&format!("\"{option}\"")));
        let has_encryption = is_set("StorageEncryption");
        let root = if is_set("RootPath") { "orthanc/" } else { "" };
        // In the second mode, the instance is soon in the bucket. The move waits for that.
        let keeps_files = is_set("WriteToFileSystem") || is_set("WriteBack");
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

/// Warnings about mistakes in the configuration.
const MISTAKES: [&str; 4] =
    ["unknown option", "deprecated", "options at the root of the configuration", "other users can access"];

/// Checks that Orthanc has logged no error, and the plugin no warning about a mistake in the configuration.
fn expect_clean_log<C: Cloud>(log: &str) -> Result<()> {
    let warnings = log_lines::<C>(log, 'W');
    let mistake = warnings.iter().find(|line| MISTAKES.iter().any(|mistake| line.contains(mistake)));
    ensure!(mistake.is_none(), "{mistake:?}");
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
        if sample.sets(C::SECTION)? {
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
    let is_in_table = |option: &str| rows.iter().any(|row| row.contains(&format!("`{option}`")));
    let files = configuration_of_debian()?;
    let names_of = |option: &str| {
        let is_set =
            |text: &str| text.lines().any(|line| line.trim_start().starts_with(&format!("\"{option}\"")));
        files.iter().filter(|(_, text)| is_set(text)).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let mut known = 0;
    for row in &rows {
        let mut cells = row.split('|').skip(1);
        let (options, file) = cells.next().zip(cells.next()).context("no file")?;
        for name in options.split('`').skip(1).step_by(2).flat_map(names_of) {
            ensure!(file.contains(&format!("`{name}`")), "{options} are in {name}, not in {file}");
            known += 1;
        }
    }
    ensure!(known >= 9, "only {known} options are set in Debian's files");
    for sample in documented_options()? {
        for option in sample.options()? {
            let is_listed = names_of(&option).is_empty() || is_in_table(&option);
            ensure!(is_listed, "{}: {option} is not in the table", sample.place);
        }
    }
    Ok(())
}

fn documented_options_of_orthanc_work<C: Cloud>() -> Result<()> {
    expect_right_table()?;
    let samples = Samples::<C>::new()?;
    for sample in documented_options()? {
        samples.check(&sample)?;
    }
    Ok(())
}

/// The other tests can fail.
fn faulty_samples_are_found<C: Cloud>() -> Result<()> {
    let samples = Samples::<C>::new()?;
    let sample = packaged::<C>(C::SAMPLE_VARIANTS[0])?;
    samples.check(&sample)?;
    let fails = |text: String, reason: &str| -> Result<()> {
        let sample = Sample { place: String::new(), text };
        let Err(error) = samples.check(&sample) else { bail!("passes: {}", sample.text) };
        ensure!(format!("{error:#}").contains(reason), "{error:#}");
        Ok(())
    };
    let bucket = format!("\"{}\"", C::BUCKET_OPTION);
    let misspelled = format!("\"VirtualAdressing\": true, {bucket}");
    fails(sample.text.replace(&bucket, &misspelled), "VirtualAdressing")?;
    let section = format!("\"{}\"", C::SECTION);
    let at_the_root = format!("\"StorageStructure\": \"flat\", {section}");
    fails(sample.text.replace(&section, &at_the_root), "at the root")?;
    let with_key = documented()?
        .into_iter()
        .find(|sample| {
            sample.sets(C::SECTION).is_ok_and(|is_set| is_set) && sample.text.contains("master-1.key")
        })
        .context("no sample has a key")?;
    fs::set_permissions(samples.files.path("master-1.key"), fs::Permissions::from_mode(0o644))?;
    fails(with_key.text, "other users can access")
}

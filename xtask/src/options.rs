//! Options of the demonstration and the benchmark: parsed by xtask before compiling, and again by each program.

pub mod cloud;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::{Long, ValueExt};

use self::cloud::CloudBench;

/// Folders and packages of the plugins.
pub const PLUGINS: [&str; 3] = ["aws-s3", "azure-blob", "google-cloud"];

/// Options of `cargo xtask demo`.
#[derive(Debug)]
pub struct Demo {
    /// One of [`PLUGINS`].
    pub plugin: &'static str,
    /// A folder with DICOM files to store instead of generated ones.
    pub dicom: Option<PathBuf>,
    /// Slices of the generated CT series.
    pub slices: u32,
    /// Size of the generated multi-frame in MB.
    pub megabytes: u32,
    /// Simultaneous clients.
    pub clients: usize,
    /// `A1` or `A2`, or none.
    pub encryption: Option<&'static str>,
    /// Whether the master key is in a key vault.
    pub key_vault: bool,
    /// Whether to keep running until Ctrl-C.
    pub keep: bool,
}

impl Demo {
    /// Reads the command line.
    ///
    /// # Errors
    /// If an option is unknown or its value wrong.
    pub fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            plugin: PLUGINS[0],
            dicom: None,
            slices: 300,
            megabytes: 100,
            clients: 4,
            encryption: Some("A2"),
            key_vault: false,
            keep: false,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("plugin") => options.plugin = plugin(&arguments.value()?.string()?)?,
                Long("provider") => options.plugin = provider(&arguments.value()?.string()?)?,
                Long("dicom") => options.dicom = Some(arguments.value()?.into()),
                Long("slices") => options.slices = arguments.value()?.parse()?,
                Long("megabytes") => options.megabytes = arguments.value()?.parse()?,
                Long("clients") => options.clients = arguments.value()?.parse()?,
                Long("encryption") => options.encryption = encryption(&arguments.value()?.string()?)?,
                Long("key-vault") => options.key_vault = true,
                Long("keep") => options.keep = true,
                other => bail!(other.unexpected()),
            }
        }
        ensure!(options.clients > 0, "--clients must be at least 1");
        ensure!(options.slices + options.megabytes > 0, "--slices and --megabytes must not both be 0");
        let folder = options.dicom.as_deref();
        ensure!(folder.is_none_or(Path::is_dir), "--dicom must be a folder, got {folder:?}");
        if options.key_vault {
            let Self { plugin, encryption, .. } = options;
            ensure!(plugin == "azure-blob", "--key-vault requires --plugin azure-blob, got {plugin}");
            let encryption = encryption.unwrap_or("none");
            ensure!(encryption == "A2", "--key-vault requires --encryption A2, got {encryption}");
        }
        Ok(options)
    }
}

/// The server of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The fake of the plugin's cloud, one for each Orthanc, which counts and can be far away.
    Fake,
    /// One Azurite for all Orthancs of a round.
    Azurite,
}

/// Options of `cargo xtask bench`.
#[derive(Debug)]
pub struct Bench {
    /// One of [`PLUGINS`].
    pub plugin: &'static str,
    /// Rounds, of which medians are taken.
    pub rounds: usize,
    /// Instances of 130 kB in each round.
    pub instances: u32,
    /// Instances of 100 MB in each round.
    pub large: u64,
    /// Whether to compare Orthanc's options for reading many files at once instead.
    pub reading: bool,
    /// Whether to measure the mode `WriteBack` instead.
    pub write_back: bool,
    /// Whether to compare master keys in a file and in a key service instead.
    pub key_service: bool,
    /// Whether to measure users' requests alongside jobs instead.
    pub jobs: bool,
    /// Whether to measure the STOW-RS gateway instead.
    pub stow: bool,
    /// The server of the bucket.
    pub server: Server,
    /// Another build of the plugin to compare with, an absolute path.
    pub against: Option<PathBuf>,
    /// `A1` or `A2`, or none. With [`Self::cloud`], the storages have formats instead.
    pub encryption: Option<&'static str>,
    /// What to measure on a line to a cloud instead.
    pub cloud: Option<CloudBench>,
}

/// Rounds, unless the command line says how many.
const ROUNDS: usize = 5;
/// The same for `--cloud`, whose rounds take long.
const CLOUD_ROUNDS: usize = 3;

impl Bench {
    /// Reads the command line.
    ///
    /// # Errors
    /// If an option is unknown or its value wrong.
    pub fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            plugin: PLUGINS[0],
            rounds: ROUNDS,
            instances: 400,
            large: 3,
            reading: false,
            write_back: false,
            key_service: false,
            jobs: false,
            stow: false,
            server: Server::Fake,
            against: None,
            encryption: None,
            cloud: None,
        };
        let mut cloud = CloudBench::default();
        let mut needs_cloud = false;
        let mut has_line = false;
        let mut rounds = None;
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("plugin") => options.plugin = plugin(&arguments.value()?.string()?)?,
                Long("rounds") => rounds = Some(arguments.value()?.parse()?),
                Long("instances") => options.instances = arguments.value()?.parse()?,
                Long("large") => options.large = arguments.value()?.parse()?,
                Long("reading") => options.reading = true,
                Long("write-back") => options.write_back = true,
                Long("jobs") => options.jobs = true,
                Long("stow") => options.stow = true,
                Long("key-service") => options.key_service = true,
                Long("cloud") => options.cloud = Some(CloudBench::default()),
                Long("server") => options.server = server(&arguments.value()?.string()?)?,
                Long("against") => options.against = Some(library(Path::new(&arguments.value()?))?),
                Long("encryption") => options.encryption = encryption(&arguments.value()?.string()?)?,
                Long("quick") => {
                    rounds = Some(2);
                    options = Self { instances: 100, large: 1, ..options };
                }
                Long(name) if cloud::OPTIONS.contains(&name) => {
                    let name = name.to_owned();
                    cloud.set(&name, arguments.value()?)?;
                    needs_cloud = true;
                    has_line |= cloud::LINE.contains(&&*name);
                }
                other => bail!(other.unexpected()),
            }
        }
        ensure!(!needs_cloud || options.cloud.is_some(), "--{} require --cloud", cloud::OPTIONS.join(", --"));
        let default_rounds = if options.cloud.is_some() { CLOUD_ROUNDS } else { ROUNDS };
        options.rounds = rounds.unwrap_or(default_rounds);
        options.cloud = options.cloud.map(|_| cloud);
        options.check(has_line)?;
        Ok(options)
    }

    /// Checks combinations. `has_line` says whether the line to the bucket was described.
    fn check(&self, has_line: bool) -> Result<()> {
        let nothing = self.rounds == 0 || self.instances == 0 || self.large == 0;
        ensure!(!nothing, "--rounds, --instances and --large must be at least 1");
        let Self { plugin, .. } = self;
        let has_service = !self.key_service || *plugin == "google-cloud";
        ensure!(has_service, "--key-service requires --plugin google-cloud");
        if self.reading || self.write_back || self.key_service || self.jobs || self.stow {
            let is_plain = self.server == Server::Fake && self.against.is_none() && self.encryption.is_none();
            ensure!(is_plain, "--server, --against and --encryption do not work with other benchmarks");
        }
        if self.cloud.is_some() {
            let is_clear = self.encryption.is_none();
            ensure!(is_clear, "--encryption does not work with --cloud: choose formats with --storage");
        }
        if self.server == Server::Azurite {
            ensure!(*plugin == "azure-blob", "--server azurite requires --plugin azure-blob, got {plugin}");
            let line = cloud::LINE.join(", --");
            ensure!(!has_line, "--{line} do not work with --server azurite, which is on this machine");
        }
        Ok(())
    }
}

fn server(name: &str) -> Result<Server> {
    match name {
        "fake" => Ok(Server::Fake),
        "azurite" => Ok(Server::Azurite),
        other => bail!("--server must be fake or azurite, got {other}"),
    }
}

/// The absolute path of a plugin's library.
fn library(file: &Path) -> Result<PathBuf> {
    let wrong = || format!("--against must be a plugin's library, got {}", file.display());
    let path = file.canonicalize().with_context(wrong)?;
    ensure!(path.is_file(), wrong());
    Ok(path)
}

fn plugin(name: &str) -> Result<&'static str> {
    match PLUGINS.into_iter().find(|plugin| *plugin == name) {
        Some(plugin) => Ok(plugin),
        None => bail!("--plugin must be one of {}, got {name}", PLUGINS.join(", ")),
    }
}

/// The plugin of a cloud: `s3`, `azure` or `google`.
fn provider(name: &str) -> Result<&'static str> {
    match ["s3", "azure", "google"].iter().zip(PLUGINS).find(|(cloud, _)| **cloud == name) {
        Some((_, plugin)) => Ok(plugin),
        None => bail!("--provider must be one of s3, azure, google, got {name}"),
    }
}

fn encryption(name: &str) -> Result<Option<&'static str>> {
    match name {
        "none" => Ok(None),
        "A1" => Ok(Some("A1")),
        "A2" => Ok(Some("A2")),
        other => bail!("--encryption must be none, A1 or A2, got {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::cloud::{Storage, Transfer};
    use super::*;

    const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    fn demo(arguments: &[&str]) -> Result<Demo> {
        Demo::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn plugins_are_the_folders() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, PLUGINS);
    }

    #[test]
    fn demo_encrypts_by_default() {
        assert_eq!(demo(&[]).unwrap().encryption, Some("A2"));
        assert_eq!(demo(&["--encryption", "none"]).unwrap().encryption, None);
    }

    #[test]
    fn plugins_are_named_by_their_clouds_too() {
        for (cloud, plugin) in [("s3", "aws-s3"), ("azure", "azure-blob"), ("google", "google-cloud")] {
            assert_eq!(demo(&["--provider", cloud]).unwrap().plugin, plugin);
        }
    }

    #[test]
    fn key_vault_belongs_to_azure_and_a2() {
        assert!(demo(&["--key-vault", "--provider", "azure"]).unwrap().key_vault);
        assert!(!demo(&["--plugin", "azure-blob"]).unwrap().key_vault);
        for (arguments, expected) in [
            (&["--key-vault"][..], "--key-vault requires --plugin azure-blob, got aws-s3"),
            (&["--provider", "google", "--key-vault"], "requires --plugin azure-blob, got google-cloud"),
            (&["--provider", "azure", "--key-vault", "--encryption", "A1"], "--encryption A2, got A1"),
            (&["--provider", "azure", "--key-vault", "--encryption", "none"], "--encryption A2, got none"),
        ] {
            let error = demo(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn errors_name_the_option_and_the_value() {
        for (option, value) in
            [("--plugin", "s3"), ("--provider", "aws"), ("--encryption", "A3"), ("--dicom", "/no/such")]
        {
            let error = demo(&[option, value]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
        assert!(demo(&["--clients", "0"]).is_err());
        assert!(Bench::parse(lexopt::Parser::from_args(["--rounds", "0"])).is_err());
    }

    fn bench(arguments: &[&str]) -> Result<Bench> {
        Bench::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn cloud_lists_are_sorted_and_have_defaults() {
        let all = bench(&["--cloud"]).unwrap();
        assert_eq!((all.rounds, all.cloud), (CLOUD_ROUNDS, Some(CloudBench::default())));
        let lists = ["--clients", "10,1,10", "--storage", "a2,BUILT-IN", "--transfer", "download,upload"];
        let line = ["--cloud", "--latency", "5", "--bandwidth", "40", "--loss", "0.01", "--rounds", "2"];
        let some = bench(&[&lists[..], &line].concat()).unwrap();
        let expected = CloudBench {
            latency: std::time::Duration::from_millis(5),
            bandwidth: 40_000_000,
            loss: 0.01,
            storages: vec![Storage::BuiltIn, Storage::A2],
            transfers: vec![Transfer::Upload, Transfer::Download],
            ..CloudBench::default()
        };
        assert_eq!((some.rounds, some.cloud), (2, Some(expected)));
    }

    #[test]
    fn cloud_options_are_checked() {
        for (arguments, expected) in [
            (&["--loss", "0.1"][..], "require --cloud"),
            (&["--cloud", "--loss", "2"], "--loss must be a share of the requests from 0 to 1, got 2"),
            (
                &["--cloud", "--bandwidth", "x"],
                "--bandwidth must be a whole number of MB/s, or 0 for no limit, got x",
            ),
            (&["--cloud", "--clients", "0"], "--clients must be at least 1"),
            (&["--cloud", "--workload", "onco,x"], "--workload must be a list of mammo, cardio, onco, got x"),
        ] {
            let error = bench(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn azurite_can_be_the_server() {
        assert_eq!(bench(&[]).unwrap().server, Server::Fake);
        for more in [&[][..], &["--cloud"], &["--encryption", "A1"], &["--against", MANIFEST]] {
            let arguments = [&["--server", "azurite", "--plugin", "azure-blob"], more].concat();
            assert_eq!(bench(&arguments).unwrap().server, Server::Azurite, "{arguments:?}");
        }
    }

    #[test]
    fn other_builds_are_absolute_paths() {
        let options = bench(&["--against", "Cargo.toml"]).unwrap();
        assert_eq!(options.against, Some(Path::new(MANIFEST).canonicalize().unwrap()));
    }

    #[test]
    fn combinations_are_checked() {
        let azurite = ["--cloud", "--server", "azurite", "--plugin", "azure-blob"];
        for (arguments, expected) in [
            (&["--server", "minio"][..], "--server must be fake or azurite, got minio"),
            (&["--server", "azurite"], "--server azurite requires --plugin azure-blob, got aws-s3"),
            (&[&azurite[..], &["--latency", "5"]].concat(), "do not work with --server azurite"),
            (&[&azurite[..], &["--loss", "0"]].concat(), "do not work with --server azurite"),
            (&["--against", "/no/such"], "--against must be a plugin's library, got /no/such"),
            (&["--against", "/"], "--against must be a plugin's library, got /"),
            (&["--jobs", "--against", MANIFEST], "do not work with other benchmarks"),
            (&["--encryption", "A2", "--stow"], "do not work with other benchmarks"),
            (&["--cloud", "--encryption", "A2"], "choose formats with --storage"),
        ] {
            let error = bench(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

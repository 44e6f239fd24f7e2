//! The Debian packages in clean Debians: what `apt` and an administrator do with them, and what must be left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fake_cloud::{BUCKET, BucketServer};
use real_orthanc::workspace::Plugin;
use serde_json::{Value, json};
use xshell::cmd;

use super::rooted::{Rooted, free_port};
use super::{Stored, empty_folder, step};
use crate::dist::{Platform, TOOL};
use crate::system::{VERSION, dist_folder, output, require, shell, target_folder};

const RELEASES: [&str; 3] = ["bookworm", "trixie", "sid"];
/// Changes with `clean-debian.sh`, so that folders made in another way are not used.
const RECIPE: u32 = 3;
/// The version of the packages that an upgrade begins with: this version's, with another sample.
const BEFORE: &str = "2.9.0";
/// A version from before the first release: the library itself is in Orthanc's folder, and the sample is a conffile.
const FIRST: &str = "0.1.0";
/// The folder of the packages in a Debian.
const PACKAGES: &str = "/packages";
const PLUGINS: &str = "usr/share/orthanc/plugins";
/// A library that was there before.
const FOREIGN: &str = "the C++ plugin";

pub(super) fn run() -> Result<()> {
    require(&["debootstrap"])?;
    let packages = empty_folder("debian-packages")?;
    collect_packages(&packages)?;
    for release in RELEASES {
        println!("Debian {release}:");
        let debian = Debian::new(release, &packages)?;
        life_of_a_plugin(&debian)?;
        step("an unused plugin is removed without a warning", || unused_plugin(&debian))?;
        step("a library of another package is kept, and follows that package", || {
            library_of_another_package(&debian)
        })?;
        for answer in [None, Some("--force-confnew"), Some("--force-confold")] {
            step(&format!("an edited conffile survives an upgrade and a purge ({answer:?})"), || {
                edited_conffile_is_kept(&debian, answer)
            })?;
        }
        // The last step, since it installs more packages.
        step("lintian finds no errors and no warnings", || lintian(&debian))?;
        fs::remove_dir_all(&debian.root).context("removing the Debian")?;
    }
    fs::remove_dir_all(&packages).context("removing the packages")
}

/// Runs this Debian's lintian on all packages of this version, for each processor.
fn lintian(debian: &Debian) -> Result<()> {
    debian.apt(&["install", "lintian"])?;
    let packages = shell()?.read_dir(debian.path(PACKAGES))?.into_iter().filter_map(|file| {
        let name = file.file_name()?.to_string_lossy().into_owned();
        name.contains(&format!("_{VERSION}_")).then(|| format!("{PACKAGES}/{name}"))
    });
    let mut command: Vec<String> =
        ["lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]
            .map(Into::into)
            .into();
    command.extend(packages);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    debian.run(&command).map(drop)
}

/// Collects the packages that are tried: all of this version, and those of the processor in former versions.
fn collect_packages(folder: &Path) -> Result<()> {
    let shell = shell()?;
    for file in shell.read_dir(dist_folder()?)? {
        if file.extension().is_some_and(|end| end == "deb") {
            shell.copy_file(&file, folder)?;
        }
    }
    let names = Plugin::all().into_iter().map(Plugin::distribution).chain([TOOL]);
    for name in names {
        let package = dist_folder()?.join(format!("{name}_{VERSION}_amd64.deb"));
        let tree = tempfile::tempdir()?;
        let tree = tree.path();
        output(cmd!(shell, "dpkg-deb --raw-extract {package} {tree}"))
            .context("the packages are missing; make them with cargo xtask dist --linux")?;
        renumber(tree, VERSION, BEFORE)?;
        if let Ok(samples) = shell.read_dir(tree.join("usr/share").join(name)) {
            for sample in samples {
                fs::write(&sample, format!("// Version {BEFORE}\n{}", fs::read_to_string(&sample)?))?;
            }
        }
        build(tree, &folder.join(format!("{name}_{BEFORE}_amd64.deb")))?;
        if name == Plugin::named("aws-s3")?.distribution() {
            renumber(tree, BEFORE, FIRST)?;
            make_first(tree, Plugin::named("aws-s3")?)?;
            build(tree, &folder.join(format!("{name}_{FIRST}_amd64.deb")))?;
        }
    }
    for version in ["1", "2"] {
        let tree = tempfile::tempdir()?;
        let library = tree.path().join(PLUGINS).join("libOrthancGoogleCloudStorage.so");
        fs::create_dir_all(library.parent().context("the library must be in a folder")?)?;
        fs::write(library, format!("other {version}"))?;
        fs::create_dir(tree.path().join("DEBIAN"))?;
        let control = format!(
            "Package: other-plugin\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\n\
             Description: a library in the way\n"
        );
        fs::write(tree.path().join("DEBIAN/control"), control)?;
        build(tree.path(), &folder.join(format!("other-plugin_{version}_amd64.deb")))?;
    }
    Ok(())
}

fn renumber(tree: &Path, from: &str, to: &str) -> Result<()> {
    let path = tree.join("DEBIAN/control");
    let control = fs::read_to_string(&path)?;
    Ok(fs::write(path, control.replace(&format!("Version: {from}\n"), &format!("Version: {to}\n")))?)
}

/// Changes a package to its form before the first release.
fn make_first(tree: &Path, plugin: Plugin) -> Result<()> {
    let library = Platform::LinuxX86.library(plugin);
    fs::rename(tree.join("usr/lib/orthanc").join(&library), tree.join(PLUGINS).join(&library))?;
    let samples = tree.join("etc/orthanc");
    fs::create_dir_all(&samples)?;
    fs::rename(
        tree.join("usr/share").join(plugin.distribution()).join(plugin.sample()),
        samples.join(plugin.sample()),
    )?;
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        fs::remove_file(tree.join("DEBIAN").join(script))?;
    }
    fs::write(tree.join("DEBIAN/conffiles"), format!("/etc/orthanc/{}\n", plugin.sample()))?;
    Ok(fs::write(tree.join("DEBIAN/triggers"), "activate-await orthanc-restart-trigger\n")?)
}

fn build(tree: &Path, package: &Path) -> Result<()> {
    let shell = shell()?;
    output(cmd!(shell, "dpkg-deb --root-owner-group -Znone --build {tree} {package}")).map(drop)
}

/// A Debian in a folder, which has the packages in `/packages`.
struct Debian {
    root: PathBuf,
}

impl Debian {
    fn new(release: &str, packages: &Path) -> Result<Self> {
        let shell = shell()?;
        let clean = orthanc_roots::Release::Sid.root().with_file_name(format!("clean-{release}-{RECIPE}"));
        output(cmd!(shell, "sh ci/packages/clean-debian.sh {release} {clean}"))?;
        let root = target_folder()?.join("dist-test").join(format!("debian-{release}"));
        shell.remove_path(&root)?;
        output(cmd!(shell, "cp --archive --reflink=auto {clean} {root}"))?;
        output(cmd!(shell, "cp --recursive {packages} {root}{PACKAGES}"))?;
        Ok(Self { root })
    }

    /// Runs a program without a terminal and without input. Returns what it prints.
    fn run(&self, program: &[&str]) -> Result<String> {
        let mut command = Command::new("unshare");
        // The scripts of Debian's packages need /proc. The mount ends with the program.
        command.arg(format!("--mount-proc={}/proc", self.root.display()));
        command
            .arg("chroot")
            .arg(&self.root)
            .args(program)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        let done = command.stdin(Stdio::null()).output().context("starting unshare")?;
        let printed = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{program:?} failed with {}:\n{printed}", done.status);
        Ok(printed.into_owned())
    }

    fn apt(&self, arguments: &[&str]) -> Result<String> {
        let options = ["apt-get", "--yes", "--no-install-recommends", "--allow-downgrades"];
        self.run(&[&options, arguments].concat())
    }

    /// Installs a package of this version or another one.
    fn install(&self, name: &str, version: &str) -> Result<String> {
        self.apt(&["install", &format!("{PACKAGES}/{name}_{version}_amd64.deb")])
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.path(path)).with_context(|| format!("reading {path}"))
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().context("a file must be in a folder")?)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Mode, owner and group, as `stat` prints them.
    fn access(&self, path: &str) -> Result<String> {
        self.run(&["stat", "--format=%a %U:%G", path]).map(|line| line.trim().to_owned())
    }

    fn version(&self, package: &str) -> Result<String> {
        self.run(&["dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", package])
    }

    /// Runs Debian's Orthanc with Debian's configuration, as its service does, on another port and without DICOM.
    fn orthanc(&self) -> Result<Rooted> {
        let configuration = "/etc/orthanc/orthanc.json";
        let port = free_port()?;
        let lines: String = self
            .read(configuration)?
            .lines()
            .map(|line| match line.trim().split_once(" : ") {
                Some(("\"HttpPort\"", _)) => format!("\"HttpPort\" : {port},\n"),
                Some(("\"DicomServerEnabled\"", _)) => "\"DicomServerEnabled\" : false,\n".to_owned(),
                _ => format!("{line}\n"),
            })
            .collect();
        self.write(configuration, &lines)?;
        Rooted::start(&self.root, "orthanc:orthanc", &["/usr/sbin/Orthanc", "/etc/orthanc/"], port, &[])
    }
}

/// How often a run of `apt` has restarted Orthanc's service.
fn restarts(printed: &str) -> usize {
    printed.matches("orthanc-restart-trigger: restarting").count()
}

fn ensure_restarts(printed: &str, expected: usize) -> Result<()> {
    let restarts = restarts(printed);
    ensure!(restarts == expected, "Orthanc was restarted {restarts} times instead of {expected}:\n{printed}");
    Ok(())
}

/// Installs the version before over a copy of the C++ plugin, upgrades, downgrades, removes and purges it.
fn life_of_a_plugin(debian: &Debian) -> Result<()> {
    let plugin = Plugin::named("aws-s3")?;
    let name = plugin.distribution();
    let library = format!("/{PLUGINS}/{}", Platform::LinuxX86.library(plugin));
    let backup = format!("{library}.before");
    let former = format!("{library}.before.1");
    let sample = format!("/etc/orthanc/{}", plugin.sample());
    let key = "/etc/orthanc/master-1.key";

    step("apt installs the version before, Orthanc and the tool; a library in the way is kept", || {
        debian.write(&library, FOREIGN)?;
        debian.write(&backup, "an administrator's backup")?;
        let printed = debian.install(name, BEFORE)?;
        ensure_restarts(&printed, 1)?;
        ensure!(printed.contains(&former), "the kept library is not named:\n{printed}");
        ensure!(debian.read(&former)? == FOREIGN, "{former} has changed");
        debian.install(TOOL, BEFORE)?;
        files_are_in_place(debian, plugin)
    })?;
    debian.write(key, "a key")?;
    let (server, section) =
        fake_cloud::serve(plugin.package(), &debian.root, |path| path.display().to_string())?;
    let configuration = json!({ plugin.section(): section }).to_string();
    let study = step("Debian's Orthanc loads the plugin and stores in the bucket", || {
        debian.write(&sample, &configuration)?;
        let orthanc = debian.orthanc()?;
        lists_plugin(&orthanc)?;
        let study = Stored::upload(&orthanc.rest, 3)?;
        ensure_objects(&server, 3)?;
        Ok(study)
    })?;
    for (title, version) in [("an upgrade", VERSION), ("a downgrade", BEFORE), ("another upgrade", VERSION)] {
        step(&format!("{title} keeps the configuration and restarts Orthanc once"), || {
            let printed = debian.install(name, version)?;
            ensure_restarts(&printed, 1)?;
            ensure!(!printed.contains("WARNING"), "{printed}");
            debian.install(TOOL, version)?;
            for package in [name, TOOL] {
                let found = debian.version(package)?;
                ensure!(found == format!("{version} installed"), "{package} has the version {found}");
            }
            ensure!(debian.read(&sample)? == configuration, "{sample} has changed");
            ensure!(debian.read(&former)? == FOREIGN, "{former} has changed");
            files_are_in_place(debian, plugin)?;
            study.check(&debian.orthanc()?.rest)
        })?;
    }
    step(
        "its removal names the library that takes over, which is back, and does not restart Orthanc",
        || {
            let printed = debian.apt(&["remove", name])?;
            ensure_restarts(&printed, 0)?;
            for text in ["WARNING", &sample, "library from before", "Rolling back", &library] {
                ensure!(printed.contains(text), "the warning lacks {text}:\n{printed}");
            }
            ensure!(!printed.contains("UNENCRYPTED"), "the former library would be used:\n{printed}");
            ensure!(debian.read(&library)? == FOREIGN, "the former library is not restored");
            ensure!(!debian.path(&former).exists(), "{former} is left");
            ensure!(debian.read(&sample)? == configuration, "{sample} has changed");
            Ok(())
        },
    )?;
    step("installed again, it keeps that library again and uses the bucket", || {
        ensure_restarts(&debian.install(name, VERSION)?, 1)?;
        ensure!(debian.read(&former)? == FOREIGN, "{former} has changed");
        let orthanc = debian.orthanc()?;
        study.check(&orthanc.rest)?;
        study.delete(&orthanc.rest)?;
        orthanc.rest.wait_for_deletions(Duration::from_secs(60))?;
        ensure_objects(&server, 0)
    })?;
    step("a purge keeps the configuration, the key and the backup", || {
        let printed = debian.apt(&["purge", name, TOOL])?;
        ensure!(printed.contains(&format!("{sample} is kept")), "the kept file is not named:\n{printed}");
        ensure!(debian.read(&sample)? == configuration, "{sample} has changed");
        ensure!(debian.read(key)? == "a key", "the key file has changed");
        ensure!(debian.read(&library)? == FOREIGN, "the former library is not restored");
        ensure!(debian.read(&backup)? == "an administrator's backup", "{backup} has changed");
        for path in [&library, &backup, &sample] {
            fs::remove_file(debian.path(path))?;
        }
        nothing_is_left(debian, plugin)
    })
}

/// Upgrades from a package whose sample is a conffile, with an option of dpkg about conffiles, and removes it; then
/// installs the package over the file, as after the archive's installation.
fn edited_conffile_is_kept(debian: &Debian, answer: Option<&str>) -> Result<()> {
    let plugin = Plugin::named("aws-s3")?;
    let name = plugin.distribution();
    let sample = format!("/etc/orthanc/{}", plugin.sample());
    let configuration = json!({ plugin.section(): {} }).to_string();
    let option = answer.map(|answer| format!("-oDpkg::Options::={answer}"));
    let install = |version: &str| {
        let package = format!("{PACKAGES}/{name}_{version}_amd64.deb");
        debian.apt(&["install"].into_iter().chain(option.as_deref()).chain([&*package]).collect::<Vec<_>>())
    };
    let ensure_kept = || {
        ensure!(debian.read(&sample)? == configuration, "{sample} has changed");
        Ok(())
    };
    install(FIRST)?;
    debian.write(&sample, &configuration)?;
    for version in [BEFORE, VERSION] {
        ensure_restarts(&install(version)?, 1)?;
        ensure_kept()?;
        let link = debian.path(&format!("{PLUGINS}/{}", Platform::LinuxX86.library(plugin)));
        ensure!(link.is_symlink(), "{} must be a link", link.display());
    }
    let printed = debian.apt(&["remove", name])?;
    for text in ["WARNING", &sample, "UNENCRYPTED", "systemctl disable --now orthanc"] {
        ensure!(printed.contains(text), "the warning lacks {text}:\n{printed}");
    }
    debian.apt(&["purge", name])?;
    ensure_kept()?;
    ensure_restarts(&install(VERSION)?, 1)?;
    ensure_kept()?;
    debian.apt(&["purge", name])?;
    ensure_kept()?;
    fs::remove_file(debian.path(&sample))?;
    nothing_is_left(debian, plugin)
}

fn ensure_objects(server: &BucketServer, expected: usize) -> Result<()> {
    let objects = server.keys(BUCKET).len();
    ensure!(objects == expected, "the bucket must contain {expected} objects, got {objects}");
    Ok(())
}

fn lists_plugin(orthanc: &Rooted) -> Result<()> {
    let plugins: Value = orthanc.rest.get_json("/plugins")?;
    ensure!(plugins.as_array().is_some_and(|all| all.contains(&json!("AWS S3 Storage"))), "{plugins}");
    Ok(())
}

fn files_are_in_place(debian: &Debian, plugin: Plugin) -> Result<()> {
    let name = plugin.distribution();
    let library = Platform::LinuxX86.library(plugin);
    for (path, expected) in [
        (format!("/usr/lib/orthanc/{library}"), "644 root:root"),
        (format!("/etc/orthanc/{}", plugin.sample()), "640 root:orthanc"),
        (format!("/usr/share/doc/{name}/copyright"), "644 root:root"),
        (format!("/usr/share/doc/{name}/changelog.gz"), "644 root:root"),
        (format!("/usr/share/doc/{name}/licenses/{name}.txt"), "644 root:root"),
        (format!("/usr/share/doc/{name}/licenses/{name}.cdx.json"), "644 root:root"),
        (format!("/usr/share/doc/{name}/configuration.md"), "644 root:root"),
        (format!("/usr/bin/{TOOL}"), "755 root:root"),
        (format!("/usr/share/man/man1/{TOOL}.1.gz"), "644 root:root"),
        (format!("/usr/share/bash-completion/completions/{TOOL}"), "644 root:root"),
    ] {
        let access = debian.access(&path)?;
        ensure!(access == expected, "{path} must have {expected}, got {access}");
    }
    let link = fs::read_link(debian.path(&format!("{PLUGINS}/{library}")))?;
    ensure!(
        link == Path::new(&format!("../../../lib/orthanc/{library}")),
        "the link leads to {}",
        link.display()
    );
    ensure!(
        debian.path("etc/ssl/certs/ca-certificates.crt").metadata()?.size() > 0,
        "no authority is installed"
    );
    debian.run(&[TOOL, "--version"]).map(drop)
}

fn nothing_is_left(debian: &Debian, plugin: Plugin) -> Result<()> {
    let diversions = debian.run(&["dpkg-divert", "--list", "*Orthanc*"])?;
    ensure!(diversions.is_empty(), "diversions are left: {diversions}");
    for folder in ["etc", "usr", "var/lib"] {
        for entry in walkdir::WalkDir::new(debian.path(folder)) {
            let entry = entry?;
            let path = entry.path().to_string_lossy();
            let is_ours =
                [plugin.distribution(), plugin.library(), TOOL].iter().any(|name| path.contains(name));
            ensure!(!is_ours, "{path} is left");
        }
    }
    Ok(())
}

/// A plugin with an unedited sample, and a copy of the library in another folder that Orthanc loads.
fn unused_plugin(debian: &Debian) -> Result<()> {
    let plugin = Plugin::named("azure-blob")?;
    let name = plugin.distribution();
    let folder = "/usr/local/share/orthanc/plugins";
    let copy = format!("{folder}/{}", Platform::LinuxX86.library(plugin));
    debian.write(&copy, FOREIGN)?;
    debian.write("/etc/orthanc/more.json", &json!({ "AnyOption": [folder] }).to_string())?;
    let printed = debian.install(name, VERSION)?;
    ensure!(printed.contains(&format!("would also load {copy}")), "the copy is not named:\n{printed}");
    fs::remove_file(debian.path(&copy))?;
    let printed = debian.install(name, BEFORE)?;
    ensure!(!printed.contains("WARNING"), "{printed}");
    let sample = debian.read(&format!("/etc/orthanc/{}", plugin.sample()))?;
    ensure!(
        sample.starts_with(&format!("// Version {BEFORE}\n")),
        "the sample is not the new one:\n{sample}"
    );
    let printed = debian.apt(&["purge", name])?;
    ensure!(!printed.contains("WARNING"), "{printed}");
    ensure_restarts(&printed, 0)?;
    nothing_is_left(debian, plugin)
}

fn library_of_another_package(debian: &Debian) -> Result<()> {
    let plugin = Plugin::named("google-cloud")?;
    let library = format!("/{PLUGINS}/{}", Platform::LinuxX86.library(plugin));
    let former = format!("{library}.before");
    debian.install("other-plugin", "1")?;
    debian.install(plugin.distribution(), VERSION)?;
    ensure!(debian.read(&former)? == "other 1", "the other package's library is not kept");
    debian.install("other-plugin", "2")?;
    ensure!(debian.read(&former)? == "other 2", "the other package's update has not reached {former}");
    ensure!(fs::symlink_metadata(debian.path(&library))?.is_symlink(), "our library was overwritten");
    debian.apt(&["purge", plugin.distribution()])?;
    ensure!(debian.read(&library)? == "other 2", "the other package's library is not restored");
    debian.apt(&["purge", "other-plugin"])?;
    nothing_is_left(debian, plugin)
}

//! The libraries and the installer for Windows, under Wine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use real_orthanc::workspace::Plugin;
use serde_json::Value;

use super::exercise::{self, Emulator};
use super::{begin, done, empty_folder, library, output};
use crate::dist::{self, Platform};
use crate::install::{self, Need};
use crate::storage::Cloud;

const WINE: &str = "/usr/lib/wine/wine64";

const NEEDS: [Need; 2] = [
    Need { file: WINE, package: "wine64", purpose: "runs programs for Windows" },
    Need { file: "x86_64-w64-mingw32-gcc", package: "gcc-mingw-w64-x86-64", purpose: "compiles for Windows" },
];

/// A folder as an administrator may have chosen it: with a blank, and not the default.
const ORTHANC: &str = r"C:\My Orthanc";
/// A made-up key, with all that base64 has.
const CONNECTION: &str = "DefaultEndpointsProtocol=https;AccountName=hospital;\
    AccountKey=Eby8vdM02x/NOcqFlq+UwPLl/mEtlCDXJ1Ou==;BlobEndpoint=https://hospital.example.org/";

pub(super) fn run() -> Result<()> {
    install::require(&NEEDS)?;
    let folder = empty_folder("windows")?;
    begin("Wine");
    output(wine()?.args(["wineboot", "-i"]))?;
    done();
    libraries(&folder)?;
    installer(&folder)
}

/// Wine with a registry and a drive C of its own.
fn wine() -> Result<Command> {
    let mut command = Command::new(WINE);
    command.env("WINEPREFIX", prefix()?).env("WINEDEBUG", "-all").env_remove("DISPLAY");
    Ok(command)
}

fn prefix() -> Result<PathBuf> {
    Ok(crate::test::target_folder()?.join("dist-test/windows/wine"))
}

/// Each library is loaded and used by the exercise.
fn libraries(folder: &Path) -> Result<()> {
    let program = folder.join("exercise.exe");
    fs::copy(dist::exercise(Platform::Windows)?, &program)?;
    let shim = dist::workspace()?.join("ci/windows/bcryptprimitives.c");
    let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
    compiler.args(["-O2", "-shared", "-o"]).arg(folder.join("bcryptprimitives.dll")).arg(shim);
    output(compiler.arg("-lbcrypt"))?;
    let emulator = Emulator {
        command: wine,
        path: |path: &Path| format!("Z:{}", path.display()).replace('/', "\\"),
        program,
    };
    for cloud in Cloud::ALL {
        let file = folder.join(Platform::Windows.library(cloud.plugin()));
        fs::write(&file, packed(cloud.plugin())?)?;
        exercise::run(cloud, &file, &emulator, folder)?;
    }
    Ok(())
}

fn packed(plugin: Plugin) -> Result<Vec<u8>> {
    library(plugin, Platform::Windows)?
        .with_context(|| format!("there is no {plugin:?}: make it with cargo xtask dist --windows"))
}

/// The installer, silently, over an Orthanc that has a plugin of its own; then again; then the uninstaller.
fn installer(folder: &Path) -> Result<()> {
    let setup = dist::folder()?.join(dist::installer_name());
    ensure!(setup.is_file(), "there is no installer: make it with cargo xtask dist --windows");
    let home = prefix()?.join("drive_c/My Orthanc");
    let azure = home.join("Plugins/OrthancAzureBlobStorage.dll");
    let configuration = home.join("Configuration/azure-blob-storage.json");
    fs::create_dir_all(home.join("Plugins"))?;
    fs::create_dir_all(home.join("Configuration"))?;
    fs::write(&azure, "the C++ plugin")?;
    let key = r"HKLM\SOFTWARE\Orthanc\Orthanc Server";
    output(wine()?.args(["reg", "add", key, "/v", "InstallDir", "/d", ORTHANC, "/f", "/reg:32"]))?;

    begin("the installer finds Orthanc's folder and installs the Azure plugin");
    let options = [&format!("/CONNECTIONSTRING={CONNECTION}"), "/CONTAINER=images"];
    output(wine()?.arg(&setup).arg("/S").args(options))?;
    ensure!(fs::read(&azure)? == packed(Plugin::AzureBlob)?, "the DLL is another one");
    ensure!(!home.join("Plugins/OrthancAwsS3Storage.dll").exists(), "the S3 plugin was not asked for");
    let section = &configuration_of(&configuration)?["AzureBlobStorage"];
    ensure!(section["ConnectionString"] == CONNECTION && section["ContainerName"] == "images", "{section}");
    done();

    begin("a second run adds plugins, and leaves the configuration as it is");
    let own = "{\"AzureBlobStorage\": {}} // the user's";
    fs::write(&configuration, own)?;
    let options = ["/CONTAINER=other", "/CONNECTIONSTRING=other", "/COMPONENTS=azure,s3,google"];
    output(wine()?.arg(&setup).arg("/S").args(options))?;
    ensure!(fs::read_to_string(&configuration)? == own, "the user's configuration was overwritten");
    for plugin in Plugin::ALL {
        let there = home.join("Plugins").join(Platform::Windows.library(plugin));
        ensure!(fs::read(&there)? == packed(plugin)?, "{} is another one", there.display());
    }
    let sample = fs::read(home.join("Configuration/aws-s3-storage.json"))?;
    ensure!(sample == dist::sample(Plugin::AwsS3, Platform::Windows)?, "the sample is another one");
    done();

    begin("the uninstaller removes what is ours, and puts back what was there");
    output(wine()?.args([&format!(r"{ORTHANC}\ObjectStorage\uninstall.exe"), "/S"]))?;
    wait_until_gone(&home.join("ObjectStorage"))?;
    ensure!(fs::read_to_string(&azure)? == "the C++ plugin", "the former plugin is not back");
    let left = fs::read_dir(home.join("Plugins"))?.count();
    ensure!(left == 1, "{left} files are left in Plugins");
    ensure!(fs::read_to_string(&configuration)? == own, "the user's configuration is gone");
    done();

    begin("a folder on the command line, and nothing but the sample");
    output(wine()?.arg(&setup).args(["/S", "/COMPONENTS=azure", r"/D=C:\Elsewhere"]))?;
    let elsewhere = prefix()?.join("drive_c/Elsewhere");
    let sample = fs::read(elsewhere.join("Configuration/azure-blob-storage.json"))?;
    ensure!(sample == dist::sample(Plugin::AzureBlob, Platform::Windows)?, "the sample is another one");
    output(wine()?.args([r"C:\Elsewhere\ObjectStorage\uninstall.exe", "/S"]))?;
    wait_until_gone(&elsewhere.join("Plugins/OrthancAzureBlobStorage.dll"))?;
    done();
    fs::remove_dir_all(folder).context("removing what was installed")
}

/// A configuration, without the comment at its beginning.
fn configuration_of(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with("//")).collect::<String>();
    serde_json::from_str(&lines).with_context(|| format!("{} is\n{text}", path.display()))
}

/// The uninstaller's program ends before it is done.
fn wait_until_gone(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while path.exists() {
        if Instant::now() >= deadline {
            bail!("{} is still there", path.display());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

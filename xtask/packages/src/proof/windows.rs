//! The libraries and the installer for Windows, in Wine.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use super::exercise::{self, Emulator};
use super::{empty_folder, step};
use crate::dist::{self, Platform, sample};
use crate::system::{dist_folder, output, require, shell, target_folder};
use real_orthanc::workspace::Plugin;

const WINE: &str = "/usr/lib/wine/wine64";

/// A library of Windows that Wine lacks, which lies in the folder of the programs.
const SHIM: &str = "bcryptprimitives.dll";

/// A folder that an administrator has chosen: it has a blank, and is not the default.
const ORTHANC: &str = r"C:\My Orthanc";
/// A connection string with a made-up key, which has all special characters of base64.
const CONNECTION: &str = "DefaultEndpointsProtocol=https;AccountName=hospital;\
    AccountKey=Eby8vdM02x/NOcqFlq+UwPLl/mEtlCDXJ1Ou==;BlobEndpoint=https://hospital.example.org/";

pub(super) fn run() -> Result<()> {
    require(&["wine64", "gcc-mingw-w64-x86-64", "unzip"])?;
    let folder = empty_folder("windows")?;
    step("Wine starts", || wine(Path::new("wineboot"), &["-i"]))?;
    libraries(&folder)?;
    installer(&folder)?;
    fs::remove_dir_all(folder).context("removing what was installed")
}

/// Returns a command for Wine, whose registry and drive C are in the proof's folder.
fn wine_command<'a>(shell: &'a Shell, program: &Path) -> Result<Cmd<'a>> {
    let command = cmd!(shell, "{WINE} {program}").env("WINEPREFIX", prefix()?).env("WINEDEBUG", "-all");
    Ok(command.env_remove("DISPLAY"))
}

fn wine(program: &Path, arguments: &[&str]) -> Result<()> {
    output(wine_command(&shell()?, program)?.args(arguments)).map(drop)
}

fn prefix() -> Result<PathBuf> {
    Ok(target_folder()?.join("dist-test/windows/wine"))
}

/// Loads and uses each library.
fn libraries(folder: &Path) -> Result<()> {
    let program = folder.join("exercise.exe");
    fs::copy(dist::build_exercise(Platform::Windows)?, &program)?;
    let source = "ci/windows/bcryptprimitives.c";
    let shell = shell()?;
    output(cmd!(shell, "x86_64-w64-mingw32-gcc -O2 -shared -o {folder}/{SHIM} {source} -lbcrypt"))?;
    let emulator = Emulator {
        command: wine_command,
        path: |path: &Path| format!("Z:{}", path.display()).replace('/', "\\"),
        program,
    };
    for plugin in Plugin::all() {
        let file = folder.join(Platform::Windows.library(plugin));
        fs::write(&file, packed(plugin)?)?;
        exercise::run(plugin, &file, &emulator, folder)?;
    }
    Ok(())
}

fn packed(plugin: Plugin) -> Result<Vec<u8>> {
    dist::packed_library(plugin, Platform::Windows)
}

/// Runs the installer silently over an Orthanc that has a plugin already, again, and then the uninstaller.
fn installer(folder: &Path) -> Result<()> {
    let setup = dist_folder()?.join(dist::installer_name());
    ensure!(setup.is_file(), "the installer is missing; make it with cargo xtask dist --windows");
    let home = prefix()?.join("drive_c/My Orthanc");
    let azure = home.join("Plugins/OrthancAzureBlobStorage.dll");
    let configuration = home.join("Configuration/azure-blob-storage.json");
    fs::create_dir_all(home.join("Plugins"))?;
    fs::create_dir_all(home.join("Configuration"))?;
    fs::write(&azure, "the C++ plugin")?;
    let key = r"HKLM\SOFTWARE\Orthanc\Orthanc Server";
    wine(Path::new("reg"), &["add", key, "/v", "InstallDir", "/d", ORTHANC, "/f", "/reg:32"])?;

    step("the installer finds Orthanc's folder and installs the Azure plugin", || {
        wine(&setup, &["/S", &format!("/CONNECTIONSTRING={CONNECTION}"), "/CONTAINER=images"])?;
        ensure!(fs::read(&azure)? == packed(Plugin::named("azure-blob")?)?, "the DLL differs");
        ensure!(!home.join("Plugins/OrthancAwsS3Storage.dll").exists(), "the S3 plugin was not selected");
        for name in ["orthanc-azure-blob-storage.txt", "orthanc-envelope.cdx.json", "nsis.txt"] {
            ensure!(home.join("ObjectStorage/licenses").join(name).is_file(), "{name} is missing");
        }
        let section = &configuration_of(&configuration)?["AzureBlobStorage"];
        ensure!(
            section["ConnectionString"] == CONNECTION && section["ContainerName"] == "images",
            "{section}"
        );
        Ok(())
    })?;

    step("the installed orthanc-envelope makes a key and decrypts what it has encrypted", || {
        fs::copy(folder.join(SHIM), home.join("ObjectStorage").join(SHIM))?;
        use_tool(&home.join("ObjectStorage"))
    })?;

    let own = "{\"AzureBlobStorage\": {}} // the user's";
    step("a second run adds plugins and keeps the configuration", || {
        fs::write(&configuration, own)?;
        let components = "/COMPONENTS=azure,s3,google";
        wine(&setup, &["/S", "/CONTAINER=other", "/CONNECTIONSTRING=other", components])?;
        ensure!(fs::read_to_string(&configuration)? == own, "the user's configuration was overwritten");
        for plugin in Plugin::all() {
            let file = home.join("Plugins").join(Platform::Windows.library(plugin));
            ensure!(fs::read(&file)? == packed(plugin)?, "{} differs", file.display());
        }
        installed_sample_is_ours(&home, "aws-s3")
    })?;

    step("the uninstaller removes our files, restores the former plugin and keeps a key", || {
        wine(Path::new(&format!(r"{ORTHANC}\ObjectStorage\uninstall.exe")), &["/S"])?;
        wait_until_removed(&home.join("ObjectStorage/licenses"))?;
        for name in ["LICENSE", "docs", "orthanc-envelope.exe", "uninstall.exe"] {
            ensure!(!home.join("ObjectStorage").join(name).exists(), "{name} is left");
        }
        ensure!(home.join("ObjectStorage/master.key").is_file(), "the key was deleted");
        ensure!(fs::read_to_string(&azure)? == "the C++ plugin", "the former plugin is not restored");
        let left = fs::read_dir(home.join("Plugins"))?.count();
        ensure!(left == 1, "{left} files are left in Plugins");
        ensure!(fs::read_to_string(&configuration)? == own, "the user's configuration has changed");
        Ok(())
    })?;

    step("the installer accepts a folder, and installs the sample without a connection string", || {
        wine(&setup, &["/S", "/COMPONENTS=azure", r"/D=C:\Elsewhere"])?;
        let elsewhere = prefix()?.join("drive_c/Elsewhere");
        installed_sample_is_ours(&elsewhere, "azure-blob")?;
        wine(Path::new(r"C:\Elsewhere\ObjectStorage\uninstall.exe"), &["/S"])?;
        wait_until_removed(&elsewhere.join("Plugins/OrthancAzureBlobStorage.dll"))
    })?;

    step("the uninstaller starts the service Orthanc again only with a former plugin", || {
        service_is_started_only_with_a_plugin(&setup)
    })
}

fn service_is_started_only_with_a_plugin(setup: &Path) -> Result<()> {
    // One of Wine's own programs stands in for Orthanc.
    let program = r"C:\windows\system32\spoolsv.exe";
    wine(Path::new("sc"), &["create", "Orthanc", "binPath=", program])?;
    for (has_former, expected) in [(false, "STOPPED"), (true, "RUNNING")] {
        if has_former {
            fs::write(prefix()?.join("drive_c/Elsewhere/Plugins/OrthancAzureBlobStorage.dll"), "former")?;
        }
        wine(Path::new("net"), &["start", "Orthanc"])?;
        wine(setup, &["/S", "/COMPONENTS=azure", r"/D=C:\Elsewhere"])?;
        // With this option, the program ends when everything is done.
        let uninstaller = Path::new(r"C:\Elsewhere\ObjectStorage\uninstall.exe");
        wine(uninstaller, &["/S", r"_?=C:\Elsewhere\ObjectStorage"])?;
        let shell = shell()?;
        let state = output(wine_command(&shell, Path::new("sc"))?.args(["query", "Orthanc"]))?;
        ensure!(state.contains(expected), "the service must be {expected}:\n{state}");
    }
    wine(Path::new("sc"), &["delete", "Orthanc"])
}

/// Encrypts and decrypts a file in the folder of the installed program.
fn use_tool(folder: &Path) -> Result<()> {
    let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
    let at = |name: &str| format!(r"{ORTHANC}\ObjectStorage\{name}");
    let (plain, envelope, key) = (at("plain"), at(&format!("{uuid}.dcm.enc")), at("master.key"));
    let program = PathBuf::from(at("orthanc-envelope.exe"));
    fs::write(folder.join("plain"), "content")?;
    wine(&program, &["keygen", &key])?;
    let key = format!("1:{key}");
    wine(&program, &["encrypt", "--key", &key, "--format", "A2", &plain, &envelope])?;
    wine(&program, &["decrypt", "--key", &key, &envelope, &at("decrypted")])?;
    ensure!(fs::read_to_string(folder.join("decrypted"))? == "content", "the content has changed");
    Ok(())
}

fn installed_sample_is_ours(home: &Path, plugin: &str) -> Result<()> {
    let plugin = Plugin::named(plugin)?;
    let installed = fs::read_to_string(home.join("Configuration").join(plugin.sample()))?;
    ensure!(installed == sample(plugin, Platform::Windows)?, "the sample differs");
    Ok(())
}

/// Reads a configuration that begins with comments.
fn configuration_of(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines: String = text.lines().filter(|line| !line.starts_with("//")).collect();
    serde_json::from_str(&lines).with_context(|| format!("{} is\n{text}", path.display()))
}

/// Waits for the uninstaller, which continues after its program has ended.
fn wait_until_removed(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while path.exists() {
        ensure!(Instant::now() < deadline, "{} still exists", path.display());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

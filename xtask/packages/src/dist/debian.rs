//! The Debian packages: folders with their files and control data, which `ci/packages/deb.sh` packs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use real_orthanc::workspace::Plugin;
use xshell::{Shell, cmd};

use super::platform::Platform;
use super::{TOOL, changelog, contents};
use crate::system::{VERSION, output, workspace};

/// Replace both before packages are published: there is no public repository yet, and nobody reads this address.
pub(crate) const MAINTAINER: &str = "The authors of these plugins <noreply@example.org>";
/// The page about the C++ plugins, which have the same configuration.
const HOMEPAGE: &str = "https://orthanc.uclouvain.be/book/plugins/object-storage.html";

/// Makes the package of a plugin.
pub(crate) fn plugin(
    plugin: Plugin,
    platform: Platform,
    library: &Path,
    licenses: &Path,
    shell: &Shell,
    target: &Path,
) -> Result<()> {
    let name = plugin.distribution();
    let file = platform.library(plugin);
    let tree = Tree::new(name, licenses, shell)?;
    tree.copy(library, &format!("usr/lib/orthanc/{file}"))?;
    tree.folder("usr/share/orthanc/plugins")?;
    let link = tree.root().join("usr/share/orthanc/plugins").join(&file);
    std::os::unix::fs::symlink(format!("../../../lib/orthanc/{file}"), link)?;
    tree.write(&format!("usr/share/{name}/{}", plugin.sample()), &contents::sample(plugin, platform)?)?;
    for (document, text) in contents::documents()? {
        tree.write(&format!("usr/share/doc/{name}/{document}"), &text)?;
    }
    for (file, document) in contents::MONITORING {
        let file = workspace()?.join("ci/docker").join(file);
        tree.copy(&file, &format!("usr/share/doc/{name}/{document}"))?;
    }
    let facts = [
        ("@PACKAGE@", name),
        ("@LIBRARY@", &file),
        ("@SAMPLE@", plugin.sample()),
        ("@SECTION@", &sections(plugin)),
    ];
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        tree.write(&format!("DEBIAN/{script}"), &template(script, &facts)?)?;
    }
    let (section, title, sample) = (plugin.section(), plugin.title(), plugin.sample());
    let control = format!(
        "Section: science\n\
         Depends: ca-certificates, libc6 (>= 2.17), orthanc\n\
         Suggests: {TOOL}\n\
         Description: {title} as the storage of Orthanc\n \
         Orthanc, a DICOM server, stores its files in a bucket instead of on a disk.\n \
         This plugin replaces the C++ plugin of the Orthanc project: it has the same\n \
         library name, configuration, object names and encrypted format.\n .\n \
         After the installation, write the section {section} in\n \
         /etc/orthanc/{sample}, and restart Orthanc.\n"
    );
    tree.pack(platform, &control, target)
}

/// Makes the package of the program `orthanc-envelope`.
pub(crate) fn tool(
    platform: Platform,
    program: &Path,
    licenses: &Path,
    shell: &Shell,
    target: &Path,
) -> Result<()> {
    let tree = Tree::new(TOOL, licenses, shell)?;
    tree.copy(program, &format!("usr/bin/{TOOL}"))?;
    let source = workspace()?.join("crates/envelope-cli");
    for (file, target) in contents::TOOL_FILES {
        tree.copy(&source.join(file), target)?;
    }
    let control = "Section: utils\n\
        Depends: libc6 (>= 2.17)\n\
        Description: reads and writes encrypted files of Orthanc\n \
        With client-side encryption, Orthanc's plugins for object storage encrypt each\n \
        file before it leaves the machine. This program decrypts, encrypts and\n \
        inspects such files without Orthanc, and makes key files.\n";
    tree.pack(platform, control, target)
}

/// Returns the names of a plugin's sections, as a regular expression.
fn sections(plugin: Plugin) -> String {
    match plugin.section() {
        // An older name that is still read.
        "AzureBlobStorage" => "(Azure)?BlobStorage".to_owned(),
        section => section.to_owned(),
    }
}

/// Returns a file of `ci/packages/debian` with the facts of a package.
fn template(name: &str, facts: &[(&str, &str)]) -> Result<String> {
    let path = workspace()?.join("ci/packages/debian").join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(facts.iter().fold(text, |text, (placeholder, fact)| text.replace(placeholder, fact)))
}

/// The files of a package, in a temporary folder.
struct Tree<'a> {
    name: &'a str,
    folder: tempfile::TempDir,
    shell: &'a Shell,
}

impl<'a> Tree<'a> {
    /// Begins with what every package has: changelog, copyright, and the licences of its parts.
    fn new(name: &'a str, licenses: &Path, shell: &'a Shell) -> Result<Self> {
        let folder = tempfile::tempdir().context("creating the folder for a Debian package")?;
        let tree = Self { name, folder, shell };
        let documents = format!("usr/share/doc/{name}");
        let markdown = fs::read_to_string(workspace()?.join("CHANGELOG.md"))?;
        tree.write(&format!("{documents}/changelog"), &changelog::for_debian(name, &markdown, shell)?)?;
        tree.write(&format!("{documents}/copyright"), &template("copyright", &[])?)?;
        for file in shell.read_dir(licenses)? {
            let file_name = file.file_name().context("a licence must have a name")?.to_string_lossy();
            tree.copy(&file, &format!("{documents}/licenses/{file_name}"))?;
        }
        Ok(tree)
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn folder(&self, path: &str) -> Result<()> {
        let folder = self.root().join(path);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))
    }

    /// Returns a path in the package, in a folder that exists.
    fn prepared(&self, path: &str) -> Result<std::path::PathBuf> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(self.root().join(path))
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.prepared(path)?, text)?)
    }

    fn copy(&self, from: &Path, path: &str) -> Result<()> {
        fs::copy(from, self.prepared(path)?).with_context(|| format!("copying {}", from.display())).map(drop)
    }

    /// Writes the package to a folder. `control` has the fields in which packages differ.
    fn pack(&self, platform: Platform, control: &str, target: &Path) -> Result<()> {
        let name = self.name;
        let architecture = platform.debian().context("Debian does not have this platform")?;
        let common = format!(
            "Package: {name}\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
             Homepage: {HOMEPAGE}\nPriority: optional\n"
        );
        self.write("DEBIAN/control", &(common + control))?;
        let root = self.root();
        let file = target.join(format!("{name}_{VERSION}_{architecture}.deb"));
        output(cmd!(self.shell, "bash ci/packages/deb.sh {root} {file}")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_the_scripts_is_replaced() {
        let facts = [("@PACKAGE@", ""), ("@LIBRARY@", ""), ("@SAMPLE@", ""), ("@SECTION@", "")];
        for script in ["preinst", "postinst", "prerm", "postrm"] {
            let text = template(script, &facts).unwrap();
            assert!(!text.contains('@'), "{text}");
        }
    }

    #[test]
    fn sections_match_the_plugins() {
        let known: Vec<_> = Plugin::all().into_iter().map(sections).collect();
        assert_eq!(known, ["AwsS3Storage", "(Azure)?BlobStorage", "GoogleCloudStorage"]);
    }
}

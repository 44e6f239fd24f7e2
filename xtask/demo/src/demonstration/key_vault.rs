//! `cargo xtask demo --key-vault`: a master key that never leaves its vault.

use std::fs;

use anyhow::{Context, Result, ensure};
use fake_cloud::BUCKET;

use super::{Demonstration, store};
use crate::vault::{Counts, Vault};
use crate::{earlier, load};

/// The option `KeyDecayCount`: small, so that the study needs several file keys.
pub(super) const DECAY: usize = 100;
/// Slices that are stored in a step.
const SLICES: u32 = 20;

impl Demonstration<'_> {
    /// Prints how often the vault was asked to store and read the study.
    pub(super) fn count_file_keys(&self) -> Result<()> {
        let counts = self.requests()?;
        println!("   The vault wraps a file key for each {DECAY} objects (KeyDecayCount).");
        let objects = self.objects();
        let expected = objects.div_ceil(DECAY);
        ensure!(counts.unwrapped == 0, "file keys in memory were unwrapped");
        ensure!(counts.wrapped >= expected, "{} file keys for {objects} objects", counts.wrapped);
        Ok(())
    }

    /// Decrypts an object as somebody would do without Orthanc.
    pub(super) fn unwrap_and_decrypt(&self, vault: &Vault, name: &str) -> Result<()> {
        let description = self.envelope(&["inspect", name])?;
        let (_, version) = description.trim().rsplit_once(' ').context("the description has no key")?;
        let wrapped = self.envelope(&["wrapped-key", name])?;
        // The vault uses another alphabet, without padding.
        let wrapped = wrapped.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
        let key = vault.unwrap(version, &wrapped)?.replace('-', "+").replace('_', "/");
        println!("   The vault unwraps this, and file.key is the answer:");
        fs::write(self.folder.path().join("file.key"), format!("{key}="))?;
        self.envelope(&["decrypt", "--unwrapped-key", "file.key", name, "decrypted.dcm"])?;
        let _ = vault.take_counts();
        Ok(())
    }

    /// Shows restarts, a new version of the key, and an outage of the vault.
    pub(super) fn show_vault(&mut self) -> Result<()> {
        self.find_earlier_blob()?;
        self.rotate()?;
        self.lose_vault()?;
        self.start_without_vault()
    }

    /// Restarts Orthanc with a blob of the earlier plugin, and reads everything.
    fn find_earlier_blob(&mut self) -> Result<()> {
        self.begin("Orthanc is restarted, and finds a blob of the earlier plugin for Azure Key Vault.");
        let vault = self.vault()?;
        let instance = self.stored.first().context("nothing was stored")?.clone();
        let location = self.location(&instance)?;
        let (object, _) = self.object(&location)?;
        let uuid = object.strip_suffix(".dcm.enc").context("the object is not encrypted")?;
        let blob = earlier::encrypt(&fs::read(&instance.file)?, vault)?;
        let _ = vault.take_counts();
        let server = &self.cloud.server;
        println!("   Replacing {object} by {uuid}-1 and {uuid}-1.info");
        server.insert(BUCKET, &format!("{uuid}-1"), blob.bytes);
        server.insert(BUCKET, &format!("{uuid}-1.info"), blob.info.to_string());
        server.remove(BUCKET, object);
        self.orthanc.restart()?;

        let location = self.location(&instance)?;
        println!("   Format of {}: {}", location["ObjectName"], location["Format"]);
        ensure!(location["Format"] == "key-vault-cbc", "the plugin says {location}");
        self.read_back(0)?;
        let counts = self.requests()?;
        println!("   One file key for new objects, and each one of the bucket once.");
        // The earlier blob has its own, and the last one of the envelopes may have served a few of them.
        let most = self.stored.len() / DECAY + 2;
        ensure!(counts.wrapped == 1 && counts.unwrapped <= most, "expected 1 and at most {most}");
        Ok(())
    }

    /// Stores under a new version of the key.
    fn rotate(&mut self) -> Result<()> {
        self.begin("The key gets a new version, and Orthanc is restarted.");
        self.vault()?.rotate()?;
        self.orthanc.restart()?;
        let first = self.stored.len();
        let files = self.slices(2, SLICES)?;
        self.upload(&files)?;
        self.read_back(0)?;
        let mut versions = Vec::new();
        for instance in [&self.stored[first - 1], &self.stored[first]] {
            let location = self.location(instance)?;
            let (name, object) = self.object(&location)?;
            fs::write(self.folder.path().join(name), &object)?;
            let description = self.envelope(&["inspect", name])?;
            versions.push(description.trim().rsplit('/').next().unwrap_or_default().to_owned());
        }
        ensure!(versions[0] != versions[1], "both objects name the version {}", versions[0]);
        println!("   New objects name the new version. All objects can be read.");
        let _ = self.vault()?.take_counts();
        Ok(())
    }

    /// Stores and reads without an answer of the vault.
    fn lose_vault(&mut self) -> Result<()> {
        self.begin("The vault does not answer any more.");
        self.vault()?.fall_silent();
        let files = self.slices(3, SLICES)?;
        self.upload(&files)?;
        self.read_back(0)?;
        let counts = self.requests()?;
        println!("   The plugin has all file keys in memory (KeyPoolSize).");
        ensure!(counts == Counts { wrapped: 0, unwrapped: 0 }, "file keys in memory were not used");
        Ok(())
    }

    /// Starts Orthanc while the vault does not answer.
    fn start_without_vault(&mut self) -> Result<()> {
        self.begin("Orthanc is restarted while the vault does not answer.");
        self.orthanc.restart()?;
        self.print_log("the key service");
        let files = self.slices(4, SLICES)?;
        let port = self.orthanc.http_port();
        let refused = load::run(port, 1, 1, |client, _| store(client, &files[0]));
        ensure!(refused.is_err(), "a file was acknowledged without a file key");
        println!("   A store is refused:");
        self.print_log("cannot store");
        println!("   The vault answers again");
        let vault = self.vault()?;
        vault.come_back();
        let _ = vault.take_counts();
        self.upload(&files)?;
        self.read_back(0)?;
        self.requests()?;
        Ok(())
    }

    fn vault(&self) -> Result<&Vault> {
        self.vault.as_ref().context("there is no vault")
    }

    /// Prints and returns what the vault was asked since the last call.
    fn requests(&self) -> Result<Counts> {
        let counts = self.vault()?.take_counts();
        println!("   Requests to the vault: {} wrapkey, {} unwrapkey", counts.wrapped, counts.unwrapped);
        Ok(counts)
    }

    /// Prints the first line of Orthanc's log that contains a text.
    fn print_log(&self, text: &str) {
        let log = self.orthanc.log();
        let line = log.lines().find(|line| line.contains(text));
        // Without date, thread and source.
        let message = line.and_then(|line| line.split_once("] ")).map(|(_, message)| message);
        println!("   {}", message.unwrap_or("(nothing in the log)"));
    }
}

//! An Orthanc with a few studies of patients who do not exist.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crypto_envelope::new_key_file;
use fake_cloud::{BUCKET, BucketServer};
use real_orthanc::dicom::{Labels, Study};
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use real_orthanc::{Orthanc, Uploaded};
use serde_json::{Value, json};
use tempfile::TempDir;

const JOB: Duration = Duration::from_mins(2);

/// Names that nobody takes for those of patients, with the study's description.
const STUDIES: [(&str, &str); 12] = [
    ("EXAMPLE^ANNA", "CT chest"),
    ("SAMPLE^BERTA", "CT abdomen"),
    ("TESTMANN^CARL", "CT head"),
    ("SPECIMEN^DORA", "CT spine"),
    ("PHANTOM^EMIL", "CT chest follow-up"),
    ("NOBODY^FRIDA", "CT pelvis"),
    ("FICTION^GUSTAV", "CT head, contrast"),
    ("MUSTERFRAU^HELGA", "CT angiography"),
    ("DEMO^IVAN", "CT chest"),
    ("PRETEND^JULE", "CT knee"),
    ("TEMPLATE^KARL", "CT sinuses"),
    ("PLACEHOLDER^LENA", "CT abdomen"),
];

/// The study that is stored while the bucket is unreachable.
const LAST: usize = STUDIES.len() - 1;

/// The Orthanc, its bucket, and the studies that the pictures show.
pub(crate) struct Archive {
    // Declared first: Orthanc must end before its bucket.
    orthanc: Orthanc,
    pub(crate) bucket: BucketServer,
    /// A study with one series in the bucket and one that waits for its upload.
    pub(crate) divided_study: String,
    _folder: TempDir,
}

impl Archive {
    /// Starts Orthanc and stores the studies.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let plugin = Plugin::named("aws-s3")?;
        let (bucket, mut section) =
            fake_cloud::serve(plugin.package(), folder.path(), |path| path.display().to_string())?;
        let key = folder.path().join("master.key");
        fs::write(&key, new_key_file()?.as_bytes())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        section["StorageEncryption"] = json!({"MasterKey": [1, key], "Format": "A2"});
        section["HybridMode"] = json!("WriteBack");
        section["WriteBack"] = json!({"UploadDelay": 3600, "MaxCacheMB": 64});
        section["MaxRetries"] = json!(0);
        let library = plugin_library(plugin, Profile::Dev)?;
        let orthanc = Orthanc::builder().plugin(library).section(plugin.section(), section).start()?;
        let mut archive = Self { orthanc, bucket, divided_study: String::new(), _folder: folder };
        archive.fill()?;
        Ok(archive)
    }

    /// The URL of the page.
    pub(crate) fn page(&self) -> String {
        format!("{}/object-storage/app/", self.orthanc.url())
    }

    fn fill(&mut self) -> Result<()> {
        for number in 0..LAST {
            self.store_series(number, 8)?;
        }
        self.orthanc.rest().post("/object-storage/flush", b"")?.ok()?;
        let job = self.verify("checksum")?;
        self.wait_for(&job)?;
        let instances = self.orthanc.rest().get_json("/instances?since=0&limit=40")?;
        for instance in instances.as_array().context("no list")? {
            self.orthanc.rest().file(instance.as_str().unwrap_or_default())?;
        }
        let file = Study(1).multi_frame(2)?;
        self.divided_study = self.store(1, &file)?.study;
        Ok(())
    }

    /// Stores a series of a study.
    fn store_series(&self, number: usize, slices: u32) -> Result<()> {
        let files = Study(number as u64).ct_series(slices, 128, 128);
        files.map(|file| self.store(number, &file?)).try_for_each(|stored| stored.map(drop))
    }

    fn store(&self, number: usize, file: &[u8]) -> Result<Uploaded> {
        let (patient_name, description) = STUDIES[number];
        let labels = Labels {
            patient_name,
            patient_id: &format!("DEMO-{:03}", number + 1),
            accession: &format!("A-2026-{:04}", 4100 + 7 * number),
            date: &format!("202611{:02}", number + 3),
            description,
        };
        self.orthanc.rest().upload(&labels.apply(file)?)
    }

    /// Starts a verification of the archive. Returns its job.
    pub(crate) fn verify(&self, depth: &str) -> Result<String> {
        let answer = self.orthanc.rest().post_json("/object-storage/verify", &json!({"Depth": depth}))?;
        Ok(answer.ok()?.json()?["ID"].as_str().context("no ID")?.to_owned())
    }

    /// Waits until a job has ended.
    pub(crate) fn wait_for(&self, job: &str) -> Result<()> {
        self.orthanc.rest().wait_job(job, JOB)?;
        Ok(())
    }

    /// Deletes an object behind Orthanc's back. Returns the job that has found out.
    pub(crate) fn find_missing_object(&self) -> Result<String> {
        let keys = self.bucket.keys(BUCKET);
        let key = keys.iter().find(|key| key.ends_with(".dcm.enc")).context("the bucket is empty")?;
        let object = self.bucket.remove(BUCKET, key).context("no object")?;
        let job = self.verify("exists")?;
        self.wait_for(&job)?;
        self.bucket.insert(BUCKET, key, object.bytes);
        Ok(job)
    }

    /// Stops the server of the bucket, and stores a study. Returns when the plugin has noticed.
    pub(crate) fn lose_bucket(&self) -> Result<()> {
        // Without the finding of the last one.
        let job = self.verify("exists")?;
        self.wait_for(&job)?;
        self.bucket.stop();
        self.store_series(LAST, 12)?;
        // It fails, which is how the plugin notices.
        self.orthanc.rest().post("/object-storage/flush", b"")?;
        let deadline = Instant::now() + JOB;
        let works = || -> Result<Value> {
            Ok(self.orthanc.rest().get_json("/object-storage/status")?["WriteBack"]["BucketWorks"].take())
        };
        while works()? != false {
            ensure!(Instant::now() < deadline, "the plugin does not notice that the bucket is unreachable");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

//! Blobs of the earlier plugin for Azure Key Vault, which know only their uuids: a database has the rest.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::Uploaded;
use serde_json::{Value, json};

use super::fixture::KeyService;
use crate::Cloud;
use crate::fixture::{request, with};
use crate::hybrid::support::{
    JOB, expect_all_at, expect_no_errors, expect_readable, move_to, stored_files, upload,
};
use crate::orthanc::fixture::{Fixture, at_once};
use crate::write_back::support::write_back;

tests! {
    EveryCloud:
        studies_of_the_earlier_plugin_are_read_moved_and_deleted,
        studies_of_the_earlier_plugin_are_reencrypted;
    Long:
        thousands_of_blobs_take_one_request_to_the_vault,
}

const NOTE: &[u8] = b"an attachment of a user";

/// An Orthanc whose whole bucket is as the earlier plugin left it.
struct TakenOver<C> {
    service: KeyService,
    fixture: Fixture<C>,
    /// With files and headers, with all content types, and one that is deleted first.
    studies: [Vec<(Uploaded, Vec<u8>)>; 3],
    blobs: usize,
}

impl<C: Cloud> TakenOver<C> {
    /// The second study has this many instances.
    fn start(instances: u32) -> Result<Self> {
        let service = KeyService::start::<C>()?;
        // Orthanc stores headers apart if it compresses files.
        let mut fixture =
            service.configured::<C>(&json!({}), |builder| builder.section("StorageCompression", true))?;
        let compressed = upload(&fixture, 1, 3)?;
        fixture.orthanc.configure(|builder| builder.section("StorageCompression", false));
        fixture.orthanc.restart()?;
        let plain = upload(&fixture, 2, instances)?;
        let others = upload(&fixture, 3, 2)?;
        fixture.rest().put(&format!("{}/attachments/1024", plain[0].0.path), NOTE)?.ok()?;
        fixture.orthanc.stop()?;
        let blobs = take_over(&service, &fixture)?;
        Ok(Self { service, fixture, studies: [compressed, plain, others], blobs })
    }

    /// Starts Orthanc with the key in the vault.
    fn start_again(&mut self, others: &Value) -> Result<()> {
        let endpoint = self.service.line.endpoint();
        let earlier = json!({
            "EnableStorage": true, "EncryptionEnabled": true, "KeyDecayCount": 10_000, "KeyPoolSize": 10,
            "CheckWrite": false,
        });
        // The earlier plugin had the key's section in its own one.
        let options = with(with(earlier, &self.service.server.master_key(&endpoint)), others);
        self.fixture.configure(&with(options, &self.service.server.section(&endpoint)));
        Ok(self.fixture.orthanc.start_again()?)
    }

    fn expect_readable(&self, studies: &[Vec<(Uploaded, Vec<u8>)>]) -> Result<()> {
        for study in studies {
            expect_readable(&self.fixture, study)?;
            for (uploaded, _) in study {
                let tags = self.fixture.rest().get_json(&format!("{}/tags?simplify", uploaded.path))?;
                ensure!(tags["Modality"] == "CT", "{tags:#}");
            }
        }
        let noted = format!("{}/attachments/1024/data", self.studies[1][0].0.path);
        ensure!(self.fixture.rest().get(&noted)?.ok()?.body == NOTE, "the attachment of the user differs");
        Ok(())
    }

    fn formats(&self, study: &str) -> Result<Vec<String>> {
        let locations = self.fixture.rest().get_json(&format!("/object-storage/locations/{study}"))?;
        let copies = locations.as_array().into_iter().flatten().flat_map(|one| one["Copies"].as_array());
        let formats = copies.flatten().map(|copy| copy["Format"].as_str().unwrap_or("?").to_owned());
        Ok(formats.collect())
    }
}

/// Replaces all objects by blobs. Returns their number.
fn take_over<C: Cloud>(service: &KeyService, fixture: &Fixture<C>) -> Result<usize> {
    let objects = fixture.objects();
    let mut kinds = BTreeMap::<u16, usize>::new();
    for (name, object) in &objects {
        let (uuid, end) = name.split_once('.').context("no extension")?;
        let kind = match end {
            "dcm" => 1,
            "dcm.head" => 3,
            // Orthanc gives plugins no more than this about attachments of users.
            "unk" => 0,
            other => bail!("unexpected {other}"),
        };
        *kinds.entry(kind).or_default() += 1;
        let [blob, sidecar] = service.server.earlier_blob(&object.bytes)?;
        fixture.bucket.remove(C::BUCKET, name);
        fixture.bucket.insert(C::BUCKET, &format!("{uuid}-{kind}"), blob);
        fixture.bucket.insert(C::BUCKET, &format!("{uuid}-{kind}.info"), sidecar);
    }
    ensure!(kinds.keys().copied().eq([0, 1, 3]), "not all content types: {kinds:?}");
    Ok(objects.len())
}

fn studies_of_the_earlier_plugin_are_read_moved_and_deleted<C: Cloud>() -> Result<()> {
    let mut taken = TakenOver::<C>::start(20)?;
    ensure!(taken.fixture.objects().len() == 2 * taken.blobs);
    taken.start_again(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    at_once(4, |_| taken.expect_readable(&taken.studies))?;
    let study = taken.studies[1][0].0.study.clone();
    let formats = taken.formats(&study)?;
    ensure!(formats.len() >= 21 && formats.iter().all(|format| format == "key-vault-cbc"), "{formats:?}");
    // One file key has encrypted everything.
    taken.service.expect_counts(0, 1)?;

    let deleted = &taken.studies[2][0].0.study;
    taken.fixture.rest().delete(&format!("/studies/{deleted}"))?.ok()?;
    let left = taken.fixture.keys().len();
    ensure!(left % 2 == 0 && left <= 2 * taken.blobs - 4, "{left} of {}", 2 * taken.blobs);
    let studies = taken.studies[..2].to_vec();
    taken.expect_readable(&studies)?;

    move_to(&taken.fixture, "file-system", &[&study])?;
    expect_all_at(&taken.fixture, &study, "file-system")?;
    let formats = taken.formats(&study)?;
    ensure!(formats.iter().all(|format| format == "A2"), "{formats:?}");
    let moved = stored_files(&taken.fixture.orthanc).len();
    ensure!(moved >= 21 && taken.fixture.keys().len() == left - 2 * moved, "{moved} of {left}");
    taken.expect_readable(&studies)?;
    move_to(&taken.fixture, "object-storage", &[&study])?;
    expect_all_at(&taken.fixture, &study, "object-storage")?;
    let formats = taken.formats(&study)?;
    ensure!(formats.iter().all(|format| format == "A2"), "{formats:?}");
    taken.expect_readable(&studies)?;
    // The moves have encrypted everything with one new file key.
    taken.service.expect_counts(1, 0)?;
    expect_no_errors(&taken.fixture)?;

    taken.fixture.orthanc.kill()?;
    // Blobs are not kept in the cache, which must not prevent reads.
    taken.start_again(&write_back(&json!({})))?;
    taken.expect_readable(&studies)?;
    taken.expect_readable(&studies)?;
    taken.service.expect_counts(0, 2)?;
    expect_no_errors(&taken.fixture)
}

fn studies_of_the_earlier_plugin_are_reencrypted<C: Cloud>() -> Result<()> {
    let mut taken = TakenOver::<C>::start(10)?;
    // Without the server's checksums, only the padding shows that an answer was damaged.
    taken.start_again(&json!({"VerifyChecksums": false}))?;
    let objects = taken.fixture.objects();
    let blobs = objects.iter().filter(|(name, _)| !name.ends_with(".info"));
    let (damaged, object) = blobs.max_by_key(|(_, object)| object.bytes.len()).context("no blob")?;
    let read = taken.fixture.whole_read()?;
    // The sidecar is read first, and always as a whole.
    let before_blob = usize::from(read == request::READ);
    let last = FaultRule::new(Fault::CorruptResponseByte(object.bytes.len() as u64 - 1)).on(read);
    let brace =
        FaultRule::new(Fault::CorruptResponseByte(0)).on(request::READ).key(format!("{damaged}.info"));
    for rule in [last.key(damaged).skip(before_blob), brace] {
        let rule = taken.fixture.bucket.faults().push(rule);
        taken.expect_readable(&taken.studies)?;
        ensure!(rule.fired() == 1, "no answer was damaged");
    }
    expect_no_errors(&taken.fixture)?;

    // Nothing shows that this blob is what was stored.
    let right = object.bytes.clone();
    let mut blob = right.to_vec();
    blob[20] ^= 1;
    taken.fixture.bucket.insert(C::BUCKET, damaged, blob);
    let job = reencrypt(&taken.fixture)?;
    let content = &job["Content"];
    ensure!(job["State"] == "Failure" && content["Failures"] == 1, "{job:#}");
    ensure!(content["Rewritten"] == taken.blobs - 1, "{job:#}");
    let error = content["FailedAttachments"][0]["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("does not have the MD5") && error.contains(damaged), "{job:#}");
    ensure!(taken.fixture.keys().len() == taken.blobs + 1, "{:?}", taken.fixture.keys());

    taken.fixture.bucket.insert(C::BUCKET, damaged, right);
    let job = reencrypt(&taken.fixture)?;
    let content = &job["Content"];
    ensure!(job["State"] == "Success" && content["Rewritten"] == 1, "{job:#}");
    ensure!(content["AlreadyCurrent"] == taken.blobs - 1, "{job:#}");
    ensure!(content["Forms"][0]["Format"] == "A2" && content["Forms"][0]["Copies"] == taken.blobs, "{job:#}");
    let names = taken.fixture.keys();
    ensure!(names.len() == taken.blobs && names.iter().all(|name| name.ends_with(".enc")), "{names:?}");
    taken.expect_readable(&taken.studies)?;
    // One file key of the earlier plugin, and one new one.
    taken.service.expect_counts(1, 1)
}

/// Runs the job for everything.
fn reencrypt<C: Cloud>(fixture: &Fixture<C>) -> Result<Value> {
    let answer = fixture.rest().post_json("/object-storage/reencrypt", &json!({}))?.ok()?.json()?;
    fixture.rest().wait_job(answer["ID"].as_str().context("no ID")?, JOB)
}

fn thousands_of_blobs_take_one_request_to_the_vault<C: Cloud>() -> Result<()> {
    const INSTANCES: u32 = 2000;
    let mut taken = TakenOver::<C>::start(INSTANCES)?;
    taken.start_again(&json!({}))?;
    at_once(4, |client| {
        let share = taken.studies[1].iter().skip(usize::try_from(client)?).step_by(4);
        expect_readable(&taken.fixture, &share.cloned().collect::<Vec<_>>())
    })?;
    taken.service.expect_counts(0, 1)?;
    expect_no_errors(&taken.fixture)
}

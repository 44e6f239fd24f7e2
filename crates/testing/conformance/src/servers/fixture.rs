//! A real Orthanc whose attachments are on a real server.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bucket::{Bucket, Cause, Payload, ReadRange};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client, Orthanc, Proxy, Uploaded};
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

use crate::Cloud;
use crate::client::fixture::all;
use crate::fixture::{configuration, library, settle, with};
use crate::orthanc::fixture::log_lines;
use crate::servers::Server;

/// Orthanc, and a client of its bucket that does not pass through it.
pub(crate) struct Fixture<C> {
    pub(crate) orthanc: Orthanc,
    section: Value,
    bucket: Bucket,
    runtime: Runtime,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Fixture<C> {
    /// Starts Orthanc with `changes` of the section.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::start(section::<C>()?, changes, |builder| builder.verbose(true))
    }

    /// Starts Orthanc with changes of the section and of Orthanc's own options.
    pub(crate) fn configured(changes: &Value, orthanc: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        Self::start(section::<C>()?, changes, orthanc)
    }

    /// Starts Orthanc with a proxy in front of the server.
    pub(crate) fn behind_proxy(changes: &Value) -> Result<(Self, Proxy)> {
        let port = Server::of_this_process()?.port()?;
        let proxy = Proxy::start(([127, 0, 0, 1], port).into())?;
        let address = proxy.endpoint().replace("http://", "").parse()?;
        Ok((Self::through(address, changes)?, proxy))
    }

    /// Starts Orthanc with another address instead of the server's.
    pub(crate) fn through(address: SocketAddr, changes: &Value) -> Result<Self> {
        let of_server = format!("127.0.0.1:{}", Server::of_this_process()?.port()?);
        let section = section::<C>()?.to_string().replace(&of_server, &address.to_string());
        Self::start(serde_json::from_str(&section)?, changes, |builder| builder.verbose(true))
    }

    fn start(section: Value, changes: &Value, orthanc: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let section = with(section, changes);
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut direct = configuration::<C>(with(self::section::<C>()?, changes));
        for (option, value) in Server::of_this_process()?.orthanc() {
            direct[option] = value.clone();
        }
        let root = direct.as_object().context("the configuration is not an object")?;
        let bucket = Bucket::new(storage_plugin::connect::<C::Provider>(root, runtime.handle())?);
        let orthanc = orthanc(builder::<C>(section.clone())?).start()?;
        Ok(Self { orthanc, section, bucket, runtime, cloud: PhantomData })
    }

    pub(crate) fn rest(&self) -> &Client {
        self.orthanc.rest()
    }

    /// Stores the slices of a study, of about 9 kB each.
    pub(crate) fn store(&self, study: u64, slices: u32) -> Result<Vec<Stored>> {
        Study(study).ct_series(slices, 64, 64).map(|file| self.store_file(file?)).collect()
    }

    /// Stores a DICOM file.
    pub(crate) fn store_file(&self, file: Vec<u8>) -> Result<Stored> {
        let uploaded = self.rest().upload(&file)?;
        let info = format!("{}/attachments/dicom/info", uploaded.path);
        let uuid = self.rest().get_json(&info)?["Uuid"].as_str().context("no Uuid")?.to_owned();
        Ok(Stored { uploaded, uuid, file })
    }

    /// Checks that all these instances are read as they were stored: whole, and the range of their tags.
    pub(crate) fn expect_readable(&self, stored: &[Stored]) -> Result<()> {
        for Stored { uploaded, file, .. } in stored {
            ensure!(self.rest().file(&uploaded.id)? == *file, "the bytes of {} differ", uploaded.path);
            let tags = self.rest().get_json(&format!("{}/tags?simplify", uploaded.path))?;
            ensure!(tags["PatientName"] == "DEMO^PATIENT", "{tags}");
        }
        Ok(())
    }

    /// Returns the first bytes of an attachment's object, none if there is no such object.
    pub(crate) fn object(&self, stored: &Stored) -> Result<Option<Vec<u8>>> {
        let root = self.root();
        let is_encrypted = self.section.get("StorageEncryption").is_some_and(|value| *value != json!({}));
        let end = if is_encrypted { ".enc" } else { "" };
        let name = format!("{root}/{}.dcm{end}", stored.uuid);
        let read = async { all(self.bucket.get(&name, ReadRange::Range(0..132)).await?).await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.cause, Cause::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts Orthanc again with other changes of the section of this server.
    pub(crate) fn start_again_with(&mut self, changes: &Value) -> Result<()> {
        self.section = with(self.section.clone(), changes);
        let section = self.section.clone();
        self.orthanc.stop()?;
        self.orthanc.configure(|builder| builder.section(C::SECTION, section));
        Ok(self.orthanc.start_again()?)
    }

    /// Stores an object below the root path, not through Orthanc.
    pub(crate) fn put(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let name = format!("{}/{name}", self.root());
        Ok(self.runtime.block_on(self.bucket.put(&name, Payload::Owned(content.into())))?)
    }

    /// Removes the object of an attachment in clear, not through Orthanc.
    pub(crate) fn remove(&self, uuid: &str) -> Result<()> {
        let name = format!("{}/{uuid}.dcm", self.root());
        Ok(self.runtime.block_on(self.bucket.delete(&name))?)
    }

    fn root(&self) -> &str {
        self.section["RootPath"].as_str().unwrap_or_default()
    }

    /// Deletes instances, and checks that their objects are gone.
    pub(crate) fn delete(&self, study: &str, stored: &[Stored]) -> Result<()> {
        for one in stored {
            ensure!(self.object(one)?.is_some(), "there is no object of {}", one.uuid);
        }
        self.rest().delete(&format!("/studies/{study}"))?.ok()?;
        settle(&self.orthanc.storage_folder());
        for one in stored {
            ensure!(self.object(one)?.is_none(), "the object of {} is not deleted", one.uuid);
        }
        Ok(())
    }

    /// Returns the number of successful uploads of objects and parts since the start of Orthanc, according to its log.
    pub(crate) fn uploads(&self) -> usize {
        let log = self.orthanc.log();
        log.lines().filter(|line| line.contains("method=PUT") && line.contains("status=20")).count()
    }

    /// Checks that the plugin has logged no error since the start.
    pub(crate) fn expect_no_errors(&self) -> Result<()> {
        let log = self.orthanc.log();
        println!("warnings: {:#?}", log_lines::<C>(&log, 'W'));
        let errors = log_lines::<C>(&log, 'E');
        ensure!(errors.is_empty(), "{errors:#?}");
        Ok(())
    }
}

/// An instance, and the file that was stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) uploaded: Uploaded,
    pub(crate) uuid: String,
    pub(crate) file: Vec<u8>,
}

/// Returns the section for the server of this test, with a folder of the bucket that no other test uses.
pub(crate) fn section<C: Cloud>() -> Result<Value> {
    let root = format!("test-{}", std::process::id());
    // Tests count requests in the log.
    let changes = json!({ "RootPath": root, C::HTTP_LOG_OPTION: true });
    Ok(with(Server::of_this_process()?.section(), &changes))
}

/// Returns the builder of an Orthanc with the plugin and this section.
pub(crate) fn builder<C: Cloud>(section: Value) -> Result<Builder> {
    let builder = Orthanc::builder().plugin(library::<C>()?).section(C::SECTION, section);
    let options = Server::of_this_process()?.orthanc();
    Ok(options.fold(builder, |builder, (option, value)| builder.section(option, value.clone())))
}

/// Returns `StorageEncryption` for a format, or no encryption for `clear`.
pub(crate) fn encryption(keys: &crate::fixture::Keys, format: &str) -> Value {
    if format == "clear" { json!({}) } else { keys.section(&json!({ "Format": format })) }
}

/// Maximum duration of a job.
pub(crate) const JOB: Duration = Duration::from_mins(2);

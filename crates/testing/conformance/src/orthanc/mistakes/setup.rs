//! An Orthanc that is about to be started with a mistake.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use fake_cloud::{BucketServer, Fault, FaultRule, Operation};
use real_orthanc::Builder;
use serde_json::{Map, Value, json};

use crate::Cloud;
use crate::fixture::{Keys, without};
use crate::orthanc::fixture::builder;

/// A password. No log may contain it.
pub(super) const SECRET: &str = "hunter2";

/// The configuration of an Orthanc, its environment and its server, without a mistake at first.
pub(super) struct Setup<'a> {
    pub(super) server: &'a BucketServer,
    /// The folder of master keys and other files.
    pub(super) keys: Keys,
    /// The name of the option with the bucket's name.
    pub(super) bucket_option: &'static str,
    missing_permission: &'static str,
    section: Value,
    root: BTreeMap<&'static str, Value>,
    environment: Vec<(&'static str, String)>,
    plugins: Vec<PathBuf>,
    running: Vec<Box<dyn Any>>,
}

impl<'a> Setup<'a> {
    pub(super) fn new<C: Cloud>(server: &'a BucketServer) -> Result<Self> {
        Ok(Self {
            server,
            keys: Keys::new()?,
            bucket_option: C::BUCKET_OPTION,
            missing_permission: C::MISSING_PERMISSION,
            section: C::section(&server.endpoint()),
            root: BTreeMap::new(),
            environment: Vec::new(),
            plugins: Vec::new(),
            running: Vec::new(),
        })
    }

    /// Sets an option of the plugin's section.
    pub(super) fn set(&mut self, option: &str, value: impl Into<Value>) -> Result<()> {
        self.section[option] = value.into();
        Ok(())
    }

    /// Returns an option of the plugin's section.
    pub(super) fn option(&self, option: &str) -> &str {
        self.section[option].as_str().unwrap_or_default()
    }

    /// Sets some options of the plugin's section, and removes those that are `null`.
    pub(super) fn change(&mut self, options: &Value) -> Result<()> {
        for (option, value) in options.as_object().into_iter().flatten() {
            if value.is_null() {
                self.section = without(self.section.take(), &[option]);
            } else {
                self.section[option] = value.clone();
            }
        }
        Ok(())
    }

    /// Replaces the whole section. `None` removes it.
    pub(super) fn replace(&mut self, section: Option<Map<String, Value>>) -> Result<()> {
        self.section = section.map_or(Value::Null, Value::Object);
        Ok(())
    }

    /// Sets an option or a section at the root of the configuration.
    pub(super) fn root(&mut self, name: &'static str, value: impl Into<Value>) -> Result<()> {
        self.root.insert(name, value.into());
        Ok(())
    }

    /// Sets `StorageEncryption` to master key 3 and these options.
    pub(super) fn encrypt(&mut self, options: &Value) -> Result<()> {
        self.set("StorageEncryption", self.keys.section(options))
    }

    /// Sets `StorageEncryption` to a master key from a file with this content.
    pub(super) fn key_file(&mut self, content: &str) -> Result<()> {
        let path = self.keys.write("new.key", content)?;
        self.encrypt(&json!({"MasterKey": [3, path]}))
    }

    /// Sets an environment variable.
    pub(super) fn environment(&mut self, name: &'static str, value: impl Into<String>) -> Result<()> {
        self.environment.push((name, value.into()));
        Ok(())
    }

    /// Loads another plugin.
    pub(super) fn plugin(&mut self, library: impl Into<PathBuf>) -> Result<()> {
        self.plugins.push(library.into());
        Ok(())
    }

    /// Makes the server answer all requests in this way.
    pub(super) fn answer(&mut self, fault: Fault) -> Result<()> {
        self.server.faults().push(FaultRule::new(fault).times(usize::MAX));
        Ok(())
    }

    /// Makes the server refuse all requests.
    pub(super) fn refuse(&mut self, status: u16, code: &str) -> Result<()> {
        self.answer(Fault::status(status, code))
    }

    /// Makes the server deny an operation.
    pub(super) fn deny(&mut self, operation: Operation) -> Result<()> {
        let denied = Fault::status(403, self.missing_permission);
        self.server.faults().push(FaultRule::new(denied).on(operation).times(usize::MAX));
        Ok(())
    }

    /// Keeps a server until Orthanc has ended.
    pub(super) fn keep(&mut self, server: impl Any) {
        self.running.push(Box::new(server));
    }

    /// Returns the Orthanc, which obeys the permissions of files even if root starts it.
    pub(super) fn builder<C: Cloud>(&self) -> Result<Builder> {
        let mut builder = builder::<C>(&self.section)?.obeying_permissions();
        if self.section.is_null() {
            builder = builder.without_section(C::SECTION);
        }
        for plugin in &self.plugins {
            builder = builder.plugin(plugin);
        }
        for (name, value) in &self.root {
            builder = builder.section(*name, value.clone());
        }
        for (name, value) in &self.environment {
            builder = builder.environment(*name, value);
        }
        Ok(builder)
    }
}

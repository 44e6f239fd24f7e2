//! Azurite without the front of this crate.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::azure::azurite::Azurite;
use crate::azure::options::AzureOptions;

/// An Azurite for several clients with a container each. They connect to it directly, so there are no counters, faults
/// and limits, and it does what Azurite does.
#[derive(Debug)]
pub struct SharedAzurite {
    azurite: Azurite,
    options: AzureOptions,
    containers: AtomicU64,
}

impl SharedAzurite {
    /// Starts Azurite without a container.
    ///
    /// # Errors
    ///
    /// Fails if Azurite does not start.
    pub fn start() -> io::Result<Self> {
        let options = AzureOptions::default();
        let azurite = Azurite::start(&options.account, &options.key)?;
        Ok(Self { azurite, options, containers: AtomicU64::new(0) })
    }

    /// Returns the options of a plugin's section with a container that no other section has. The plugin creates it.
    #[must_use]
    pub fn section(&self) -> Value {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let endpoint = format!("http://127.0.0.1:{}", self.azurite.port());
        json!({
            "ConnectionString": self.options.connection_string(&endpoint),
            "ContainerName": format!("container-{number}"),
        })
    }
}

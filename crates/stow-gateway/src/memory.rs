//! A sink in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::sink::{Instance, Receipt, Sink, Upload, UploadError};

/// A sink that keeps the instances in memory, for tests.
#[derive(Debug, Default)]
pub struct MemorySink {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemorySink {
    /// All instances by their object names.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().clone()
    }
}

/// An upload to a [`MemorySink`].
#[derive(Debug)]
pub struct MemoryUpload {
    name: String,
    content: BytesMut,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl Sink for &MemorySink {
    type Upload = MemoryUpload;

    fn begin(&self, instance: &Instance) -> Result<MemoryUpload, UploadError> {
        let objects = Arc::clone(&self.objects);
        Ok(MemoryUpload { name: instance.object_name(), content: BytesMut::new(), objects })
    }
}

impl Upload for MemoryUpload {
    type Receipt = Stored;

    fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    fn finish(self) -> Stored {
        self.objects.lock().insert(self.name, self.content.freeze());
        Stored
    }
}

/// The confirmation of a [`MemoryUpload`].
#[derive(Debug)]
pub struct Stored;

impl Receipt for Stored {
    fn wait(self) -> Result<(), UploadError> {
        Ok(())
    }
}

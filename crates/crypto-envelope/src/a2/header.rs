//! The header of A2: everything before the segments.

use std::fmt;

use crate::a2::layout::A2Geometry;
use crate::error::{DecryptError, HeaderError};
use crate::format::Format;
use crate::primitives::KWP_LEN;

/// Length of the salt in bytes.
pub(crate) const SALT_LEN: usize = 32;

/// Algorithm 1. Those from 2 on are of key services.
const WRAP_MASTER_KEY: u8 = 1;

/// How a file key is wrapped, as stored in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWrap<'a> {
    /// Algorithm 1: AES-256-KWP (RFC 5649) under a key derived from a master key.
    MasterKey {
        /// The master key's id.
        key_id: u32,
        /// The wrapped file key.
        wrapped: &'a [u8; KWP_LEN],
    },
    /// Algorithms 2 to 4: by a key service.
    Service(ServiceWrap<'a>),
}

/// A service that wraps file keys, and never gives out the key that it wraps them with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Algorithm 2: RSA-OAEP-256 by Azure Key Vault.
    AzureKeyVault,
    /// Algorithm 3: AWS Key Management Service.
    AwsKms,
    /// Algorithm 4: Google Cloud Key Management Service.
    GoogleKms,
}

impl Service {
    const ALL: [Self; 3] = [Self::AzureKeyVault, Self::AwsKms, Self::GoogleKms];

    pub(crate) fn of_algorithm(algorithm: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.algorithm() == algorithm)
    }

    /// The number of the key wrap algorithm in the header.
    pub fn algorithm(self) -> u8 {
        match self {
            Self::AzureKeyVault => 2,
            Self::AwsKms => 3,
            Self::GoogleKms => 4,
        }
    }

    /// Whether the header has the name of the service's key. The ciphertexts of AWS contain it themselves.
    pub fn has_key_name(self) -> bool {
        self != Self::AwsKms
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AzureKeyVault => "Azure Key Vault",
            Self::AwsKms => "AWS KMS",
            Self::GoogleKms => "Google Cloud KMS",
        })
    }
}

/// A file key as wrapped by a key service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceWrap<'a> {
    /// The service.
    pub service: Service,
    /// The name of the service's key: in Azure its identifier with version, in Google its resource name without
    /// version, for AWS empty. At most 65,533 bytes together with `wrapped`.
    pub key: &'a str,
    /// The service's ciphertext.
    pub wrapped: &'a [u8],
}

impl<'a> ServiceWrap<'a> {
    /// Splits the field: length of the name (uint16 little-endian), name in UTF-8, ciphertext; for AWS only the
    /// ciphertext.
    pub(crate) fn parse(service: Service, field: &'a [u8]) -> Option<Self> {
        let (key, wrapped) = if service.has_key_name() {
            let (len, rest) = field.split_first_chunk::<2>()?;
            let (key, wrapped) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            (std::str::from_utf8(key).ok().filter(|key| !key.is_empty())?, wrapped)
        } else {
            ("", field)
        };
        (!wrapped.is_empty()).then_some(Self { service, key, wrapped })
    }

    /// The field in the header.
    pub(crate) fn field(&self) -> Result<Vec<u8>, HeaderError> {
        if !self.service.has_key_name() {
            return Ok(self.wrapped.to_vec());
        }
        let len =
            u16::try_from(self.key.len()).map_err(|_| HeaderError::MalformedServiceWrap(self.service))?;
        Ok([&len.to_le_bytes(), self.key.as_bytes(), self.wrapped].concat())
    }
}

impl<'a> KeyWrap<'a> {
    fn parse(algorithm: u8, key_id: u32, field: &'a [u8]) -> Result<Self, HeaderError> {
        match algorithm {
            WRAP_MASTER_KEY => {
                let wrapped = <&[u8; KWP_LEN]>::try_from(field)
                    .map_err(|_| HeaderError::WrappedKeyLength { algorithm, len: field.len() })?;
                Ok(Self::MasterKey { key_id, wrapped })
            }
            other => {
                let service = Service::of_algorithm(other).ok_or(HeaderError::WrapAlgorithm(other))?;
                ServiceWrap::parse(service, field)
                    .filter(|_| key_id == 0)
                    .map(Self::Service)
                    .ok_or(HeaderError::MalformedServiceWrap(service))
            }
        }
    }
}

/// The validated content of the header's first 42 bytes.
pub(crate) struct FixedPart {
    pub(crate) geometry: A2Geometry,
    wrap_algorithm: u8,
    /// `None` for a master key.
    pub(crate) service: Option<Service>,
}

/// A complete, well-formed A2 header. The header is not authentic until a segment has been opened with it.
#[derive(Clone, PartialEq, Eq)]
pub struct A2Header {
    /// The envelope's bytes 0 to 42 + W, from which the content key is derived.
    bytes: Box<[u8]>,
    geometry: A2Geometry,
}

impl A2Header {
    /// Length of the part before the wrapped key, in bytes.
    pub(crate) const FIXED_LEN: usize = 10 + SALT_LEN;

    /// Creates the header of a new envelope with standard segments.
    pub(crate) fn new(wrap: &KeyWrap<'_>, salt: &[u8; SALT_LEN]) -> Result<Self, HeaderError> {
        let (algorithm, key_id, field) = match *wrap {
            KeyWrap::MasterKey { key_id, wrapped } => (WRAP_MASTER_KEY, key_id, wrapped.to_vec()),
            KeyWrap::Service(wrap) => (wrap.service.algorithm(), 0, wrap.field()?),
        };
        // A header that could not be read again must not be written.
        KeyWrap::parse(algorithm, key_id, &field)?;
        let field_len = u16::try_from(field.len())
            .map_err(|_| HeaderError::WrappedKeyLength { algorithm, len: field.len() })?;
        let geometry = A2Geometry::new(A2Geometry::STANDARD_K, field_len)?;

        let mut bytes = Vec::with_capacity(Self::FIXED_LEN + field.len());
        bytes.extend_from_slice(&Format::A2.magic());
        bytes.extend_from_slice(&key_id.to_le_bytes());
        bytes.extend_from_slice(&[algorithm, A2Geometry::STANDARD_K]);
        bytes.extend_from_slice(&field_len.to_le_bytes());
        bytes.extend_from_slice(salt);
        bytes.extend_from_slice(&field);
        Ok(Self { bytes: bytes.into(), geometry })
    }

    /// Reads the first 42 bytes. Returns `None` if `start` is shorter.
    pub(crate) fn read_fixed(start: &[u8]) -> Result<Option<FixedPart>, DecryptError> {
        // This check comes first, because a short object that is not an envelope is not a truncated envelope.
        if !Format::A2.magic().starts_with(&start[..start.len().min(2)]) {
            return Err(DecryptError::NotAnEnvelope);
        }
        let Some(fixed) = start.first_chunk::<{ Self::FIXED_LEN }>() else { return Ok(None) };
        let wrap_algorithm = fixed[6];
        let field_len = u16::from_le_bytes([fixed[8], fixed[9]]);
        // The length is checked before the field arrives, so that nobody waits for bytes because W is damaged.
        if wrap_algorithm == WRAP_MASTER_KEY && usize::from(field_len) != KWP_LEN {
            let len = usize::from(field_len);
            return Err(HeaderError::WrappedKeyLength { algorithm: wrap_algorithm, len }.into());
        }
        let service = Service::of_algorithm(wrap_algorithm);
        if service.is_none() && wrap_algorithm != WRAP_MASTER_KEY {
            return Err(HeaderError::WrapAlgorithm(wrap_algorithm).into());
        }
        Ok(Some(FixedPart { geometry: A2Geometry::new(fixed[7], field_len)?, wrap_algorithm, service }))
    }

    /// Reads a header from the envelope's start; bytes after the header are ignored. Returns `None` if
    /// `start` is shorter than the header.
    ///
    /// # Errors
    /// [`DecryptError::NotAnEnvelope`], [`DecryptError::Header`].
    pub fn parse(start: &[u8]) -> Result<Option<Self>, DecryptError> {
        let Some(FixedPart { geometry, wrap_algorithm, .. }) = Self::read_fixed(start)? else {
            return Ok(None);
        };
        let Some(bytes) = start.get(..geometry.header_len_usize()) else { return Ok(None) };
        let header = Self { bytes: bytes.into(), geometry };
        KeyWrap::parse(wrap_algorithm, header.key_id(), header.field())?;
        Ok(Some(header))
    }

    /// Returns the master key's id; 0 with a key service.
    pub fn key_id(&self) -> u32 {
        u32::from_le_bytes([self.bytes[2], self.bytes[3], self.bytes[4], self.bytes[5]])
    }

    /// Returns the service that wrapped the file key; `None` for a master key.
    pub fn service(&self) -> Option<Service> {
        Service::of_algorithm(self.bytes[6])
    }

    /// Returns how the file key is wrapped.
    pub fn wrap(&self) -> KeyWrap<'_> {
        // Unreachable, since the constructors have parsed the field. The fallback could not be unwrapped.
        KeyWrap::parse(self.bytes[6], self.key_id(), self.field())
            .unwrap_or(KeyWrap::MasterKey { key_id: self.key_id(), wrapped: &[0; KWP_LEN] })
    }

    /// Returns header length and segment size.
    pub fn geometry(&self) -> A2Geometry {
        self.geometry
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn salt(&self) -> &[u8] {
        &self.bytes[10..Self::FIXED_LEN]
    }

    fn field(&self) -> &[u8] {
        &self.bytes[Self::FIXED_LEN..]
    }
}

impl fmt::Debug for A2Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2Header")
            .field("key_id", &self.key_id())
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

/// Collects a header from bytes that arrive in chunks.
#[derive(Debug, Default)]
pub struct HeaderReader {
    collected: Vec<u8>,
}

impl HeaderReader {
    /// Creates a reader that expects the envelope's first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes the bytes of the header from the start of `chunk`. Returns the header when it is complete;
    /// `chunk` then begins with the first segment.
    ///
    /// # Errors
    /// The same as [`A2Header::parse`].
    pub fn push(&mut self, chunk: &mut &[u8]) -> Result<Option<A2Header>, DecryptError> {
        loop {
            let needed = match A2Header::read_fixed(&self.collected)? {
                None => A2Header::FIXED_LEN,
                Some(fixed) => fixed.geometry.header_len_usize(),
            };
            let missing = needed - self.collected.len();
            if missing == 0 {
                return A2Header::parse(&self.collected);
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = chunk.split_at(missing.min(chunk.len()));
            self.collected.extend_from_slice(taken);
            *chunk = rest;
        }
    }

    /// Returns the number of bytes collected so far.
    pub(crate) fn collected(&self) -> usize {
        self.collected.len()
    }
}

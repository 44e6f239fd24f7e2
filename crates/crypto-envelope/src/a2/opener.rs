//! The keys of an A2 envelope, which open single segments.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;

use crate::a2::header::{A2Header, KeyWrap, ServiceWrap};
use crate::a2::layout::A2Layout;
use crate::error::{DecryptError, InvalidUuid, PrimitiveFailed};
use crate::key_ring::KeyRing;
use crate::primitives::{KEY_LEN, Secret, TAG_LEN, hkdf_sha256, kwp_unwrap};

/// `info` of the content key's HKDF, followed there by header and UUID.
const CONTENT_INFO: &[u8] = b"orthanc-object-storage A2 content";

/// An envelope's unwrapped file key of 32 bytes, wiped on drop.
pub struct FileKey(Secret);

impl FileKey {
    /// Creates a file key from the 32 bytes that a key service unwrapped. The caller must wipe
    /// its own copy.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// Returns a random file key.
    ///
    /// # Errors
    /// [`PrimitiveFailed`] if no random bytes are available.
    pub fn random() -> Result<Self, PrimitiveFailed> {
        Secret::random().map(Self)
    }

    /// Returns the 32 bytes, for a key service to wrap.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        self.0.as_ref()
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

/// A valid attachment UUID, as the bytes that the content key is bound to. The case of letters is preserved;
/// Orthanc uses lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundUuid([u8; 36]);

impl BoundUuid {
    pub(crate) fn parse(uuid: &str) -> Result<Self, InvalidUuid> {
        let bytes = <[u8; 36]>::try_from(uuid.as_bytes()).map_err(|_| InvalidUuid)?;
        let well_formed = bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        if well_formed { Ok(Self(bytes)) } else { Err(InvalidUuid) }
    }
}

impl fmt::Display for BoundUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// The key that seals an envelope's segments.
pub(crate) struct ContentKey(LessSafeKey);

impl ContentKey {
    /// Derives the key from the file key with HKDF-SHA256, bound to the whole header and the attachment's
    /// UUID.
    pub(crate) fn derive(
        file_key: &FileKey,
        header: &A2Header,
        uuid: &BoundUuid,
    ) -> Result<Self, PrimitiveFailed> {
        let info = [CONTENT_INFO, header.bytes(), uuid.0.as_slice()];
        let bytes = hkdf_sha256(file_key.expose(), header.salt(), &info)?;
        // The library copies the key to its own memory, and wipes that memory before freeing it.
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_ref().as_slice())
            .map_err(|Unspecified| PrimitiveFailed("set up AES-GCM"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Returns the nonce of the STREAM construction: the segment's index (11 bytes, big-endian), then 1 for
    /// the last segment and 0 for the others.
    fn nonce(segment: u64, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&segment.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts `plaintext` into `out`, which must be [`TAG_LEN`] bytes longer.
    pub(crate) fn seal(
        &self,
        segment: u64,
        last: bool,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(), PrimitiveFailed> {
        let failed = PrimitiveFailed("seal a segment with AES-GCM");
        let (ciphertext, tag) = out.split_at_mut_checked(plaintext.len()).ok_or(failed)?;
        let nonce = Self::nonce(segment, last);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::empty(), plaintext, ciphertext, &[], tag)
            .map_err(|Unspecified| failed)
    }

    /// Verifies `sealed` and decrypts it into `out`, which must be [`TAG_LEN`] bytes shorter. On failure, the
    /// content of `out` is unspecified and must not be used.
    fn open(&self, segment: u64, last: bool, sealed: &[u8], out: &mut [u8]) -> Result<(), Unspecified> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Unspecified)?;
        self.0.open_separate_gather(Self::nonce(segment, last), Aad::empty(), ciphertext, tag, out)
    }
}

/// Opens the segments of one envelope. Contains the envelope's header and the content key derived from it.
///
/// Keep the opener, a few hundred bytes, to read the same object again without fetching its header. Keep the
/// object's version (ETag) with it, because a replaced object has a different header. The key is wiped on
/// drop.
pub struct A2Opener {
    header: A2Header,
    uuid: BoundUuid,
    content_key: ContentKey,
}

impl A2Opener {
    /// Creates an opener, unwrapping the file key with a master key of the ring. A file key that a key service wrapped
    /// must be among the ring's [`FileKeys`](crate::FileKeys).
    ///
    /// # Errors
    /// [`DecryptError::UnknownKeyId`], [`DecryptError::WrappedKeyNotAuthentic`],
    /// [`DecryptError::InvalidUuid`], [`DecryptError::NotUnwrapped`].
    pub fn unwrap(ring: &KeyRing, header: A2Header, uuid: &str) -> Result<Self, DecryptError> {
        let file_key = match header.wrap() {
            KeyWrap::MasterKey { key_id, wrapped } => {
                let wrapping_key = ring.get(key_id)?.wrapping_key();
                kwp_unwrap(wrapping_key.as_ref(), wrapped)
                    .map(FileKey)
                    .ok_or(DecryptError::WrappedKeyNotAuthentic { key_id })?
            }
            KeyWrap::Service(wrap) => {
                let ServiceWrap { service, key, .. } = wrap;
                let known = ring.file_keys().and_then(|keys| keys.known(&wrap));
                let file_key = known.as_ref().map(|key| key.file_key()).or_else(|| ring.unwrapped());
                let file_key =
                    file_key.ok_or_else(|| DecryptError::NotUnwrapped { service, key: key.to_owned() })?;
                return Self::with_file_key(header, file_key, uuid);
            }
        };
        Self::with_file_key(header, &file_key, uuid)
    }

    /// Creates an opener from an unwrapped file key.
    ///
    /// # Errors
    /// [`DecryptError::InvalidUuid`], [`DecryptError::Primitive`]. A wrong file key is detected by the first
    /// segment.
    pub fn with_file_key(header: A2Header, file_key: &FileKey, uuid: &str) -> Result<Self, DecryptError> {
        let uuid = BoundUuid::parse(uuid)?;
        let content_key = ContentKey::derive(file_key, &header, &uuid)?;
        Ok(Self { header, uuid, content_key })
    }

    /// Returns the envelope's header.
    pub fn header(&self) -> &A2Header {
        &self.header
    }

    /// Returns the layout of this envelope of `envelope_len` bytes, as reported by the storage.
    ///
    /// # Errors
    /// [`DecryptError::InvalidLength`].
    pub fn layout(&self, envelope_len: u64) -> Result<A2Layout, DecryptError> {
        A2Layout::new(self.header.geometry(), envelope_len)
    }

    /// Verifies and decrypts one segment. On failure, `out` must not be used.
    pub(crate) fn open(
        &self,
        layout: &A2Layout,
        segment: u64,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), DecryptError> {
        self.content_key.open(segment, layout.is_last(segment), sealed, out).map_err(|Unspecified| {
            DecryptError::SegmentNotAuthentic {
                segment,
                segments: layout.segments(),
                uuid: self.uuid.to_string(),
            }
        })
    }
}

impl fmt::Debug for A2Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2Opener").field("header", &self.header).finish_non_exhaustive()
    }
}

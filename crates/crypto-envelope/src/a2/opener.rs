//! Keys of one A2 envelope, and the opening of single segments.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;

use crate::a2::header::{A2Header, KeyWrap};
use crate::a2::layout::A2Layout;
use crate::error::{DecryptError, InvalidUuid, PrimitiveFailed};
use crate::key_ring::KeyRing;
use crate::primitives::{KEY_LEN, Secret, TAG_LEN, hkdf_sha256, kwp_unwrap};

/// `info` of the content key's HKDF, before the header and the UUID.
const CONTENT_INFO: &[u8] = b"orthanc-object-storage A2 content";

/// An envelope's file key of 32 bytes, unwrapped. Wiped on drop.
pub struct FileKey(Secret);

impl FileKey {
    /// Takes a key's 32 bytes, from whoever unwrapped it (Key Vault). The caller wipes its own copy.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// A new one.
    ///
    /// # Errors
    /// [`PrimitiveFailed`] when there are no random bytes to be had.
    pub fn random() -> Result<Self, PrimitiveFailed> {
        Secret::random().map(Self)
    }

    /// The bytes, for whoever wraps the key (Key Vault).
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        self.0.as_ref()
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

/// An attachment's UUID, checked to be one, as the bytes that the content key is bound to. The letters' case is kept:
/// Orthanc's are lower-case.
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

/// The key that an envelope's segments are sealed with.
pub(crate) struct ContentKey(LessSafeKey);

impl ContentKey {
    /// HKDF-SHA256 of the file key, bound to the whole header and the attachment's UUID.
    pub(crate) fn derive(
        file_key: &FileKey,
        header: &A2Header,
        uuid: &BoundUuid,
    ) -> Result<Self, PrimitiveFailed> {
        let info = [CONTENT_INFO, header.bytes(), uuid.0.as_slice()];
        let key = hkdf_sha256(file_key.expose(), header.salt(), &info)?;
        // The library keeps it in memory of its own, which it wipes when it frees it.
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref().as_slice())
            .map_err(|Unspecified| PrimitiveFailed("set up AES-GCM"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// The STREAM construction's nonce: the segment's index, 11 bytes big-endian, and whether it is the last.
    fn nonce(segment: u64, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&segment.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts `plaintext` into `out`, which is [`TAG_LEN`] bytes longer.
    pub(crate) fn seal(
        &self,
        segment: u64,
        last: bool,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(), PrimitiveFailed> {
        let failed = PrimitiveFailed("seal a segment with AES-GCM");
        let (ciphertext, tag) = out.split_at_mut_checked(plaintext.len()).ok_or(failed)?;
        self.0
            .seal_out_of_place_scatter(
                Self::nonce(segment, last),
                Aad::empty(),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .map_err(|Unspecified| failed)
    }

    /// Verifies and decrypts `sealed` into `out`, which is [`TAG_LEN`] bytes shorter. On failure, what `out` holds is
    /// unspecified and must not be used.
    fn open(&self, segment: u64, last: bool, sealed: &[u8], out: &mut [u8]) -> Result<(), Unspecified> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Unspecified)?;
        self.0.open_separate_gather(Self::nonce(segment, last), Aad::empty(), ciphertext, tag, out)
    }
}

/// Opens the segments of one envelope: its header, and the content key derived from it.
///
/// Worth keeping for later reads of the same object, which then need no header: it holds a few hundred bytes. The key
/// is wiped on drop. A replaced object has another header: keep an opener together with the object's version (ETag).
pub struct A2Opener {
    header: A2Header,
    uuid: BoundUuid,
    content_key: ContentKey,
}

impl A2Opener {
    /// Unwraps the file key with a master key of the ring.
    ///
    /// # Errors
    /// [`DecryptError::UnknownKeyId`], [`DecryptError::WrappedKeyNotAuthentic`], [`DecryptError::InvalidUuid`];
    /// [`DecryptError::KeyVaultNotAvailable`] for algorithm 2: have the vault unwrap what [`A2Header::wrap`] returns,
    /// and use [`with_file_key`](Self::with_file_key).
    pub fn unwrap(ring: &KeyRing, header: A2Header, uuid: &str) -> Result<Self, DecryptError> {
        let file_key = match header.wrap() {
            KeyWrap::MasterKey { key_id, wrapped } => {
                let wrapping_key = ring.get(key_id)?.wrapping_key();
                kwp_unwrap(wrapping_key.as_ref(), wrapped)
                    .map(FileKey)
                    .ok_or(DecryptError::WrappedKeyNotAuthentic { key_id })?
            }
            KeyWrap::KeyVault { kid, .. } => {
                return Err(DecryptError::KeyVaultNotAvailable { kid: kid.to_owned() });
            }
        };
        Self::with_file_key(header, &file_key, uuid)
    }

    /// With a file key that was unwrapped elsewhere.
    ///
    /// # Errors
    /// [`DecryptError::InvalidUuid`], [`DecryptError::Primitive`]. A wrong file key shows with the first segment.
    pub fn with_file_key(header: A2Header, file_key: &FileKey, uuid: &str) -> Result<Self, DecryptError> {
        let uuid = BoundUuid::parse(uuid)?;
        let content_key = ContentKey::derive(file_key, &header, &uuid)?;
        Ok(Self { header, uuid, content_key })
    }

    /// The envelope's header.
    pub fn header(&self) -> &A2Header {
        &self.header
    }

    /// The layout of this envelope, whose length the storage has told.
    ///
    /// # Errors
    /// [`DecryptError::InvalidLength`].
    pub fn layout(&self, envelope_len: u64) -> Result<A2Layout, DecryptError> {
        A2Layout::new(self.header.geometry(), envelope_len)
    }

    /// Verifies and decrypts one segment; on failure `out` must not be used.
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

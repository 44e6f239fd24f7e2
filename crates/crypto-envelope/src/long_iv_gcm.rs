//! Incremental AES-256-GCM with a 32-byte IV, for A1.
//!
//! This module contains the crate's only unsafe code. GCM allows IVs of any length, and derives the first
//! counter block of an IV that does not have 96 bits with GHASH (NIST SP 800-38D, 7.1). A1 has 256-bit IVs,
//! and must be decrypted as it arrives. `aws-lc-rs` supports only 96-bit nonces and whole messages, but the C
//! library below it supports both in its `EVP_CIPHER` interface. This module wraps that interface in two safe
//! types, [`Seal`] and [`Open`].

#![allow(unsafe_code, reason = "see the module's documentation")]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use aws_lc_sys as ffi;

use crate::error::PrimitiveFailed;
use crate::primitives::{KEY_LEN, TAG_LEN};

/// Length of A1's IV in bytes.
pub(crate) const IV_LEN: usize = 32;

/// Maximum number of bytes per call, since lengths are C `int`s. Longer input is split.
const MAX_PIECE: usize = 1 << 30;

/// The library's return value for success.
const SUCCESS: c_int = 1;

type InitFn = unsafe extern "C" fn(
    *mut ffi::EVP_CIPHER_CTX,
    *const ffi::EVP_CIPHER,
    *mut ffi::ENGINE,
    *const u8,
    *const u8,
) -> c_int;
type UpdateFn =
    unsafe extern "C" fn(*mut ffi::EVP_CIPHER_CTX, *mut u8, *mut c_int, *const u8, c_int) -> c_int;
type FinalFn = unsafe extern "C" fn(*mut ffi::EVP_CIPHER_CTX, *mut u8, *mut c_int) -> c_int;

/// The library's functions for one direction.
struct Direction {
    init: InitFn,
    update: UpdateFn,
    finish: FinalFn,
    failed: PrimitiveFailed,
}

static SEAL: Direction = Direction {
    init: ffi::EVP_EncryptInit_ex,
    update: ffi::EVP_EncryptUpdate,
    finish: ffi::EVP_EncryptFinal_ex,
    failed: PrimitiveFailed("encrypt with AES-GCM"),
};

static OPEN: Direction = Direction {
    init: ffi::EVP_DecryptInit_ex,
    update: ffi::EVP_DecryptUpdate,
    finish: ffi::EVP_DecryptFinal_ex,
    failed: PrimitiveFailed("decrypt with AES-GCM"),
};

/// An initialized cipher context. The library wipes the context, including key schedule and IV, when it is
/// freed.
struct Context {
    raw: NonNull<ffi::EVP_CIPHER_CTX>,
    direction: &'static Direction,
}

// SAFETY: this value alone owns the context, and the library does not tie contexts to threads.
unsafe impl Send for Context {}

// SAFETY: every function that passes `raw` to the library takes `&mut self`.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `EVP_CIPHER_CTX_new` and is freed only here.
        unsafe { ffi::EVP_CIPHER_CTX_free(self.raw.as_ptr()) }
    }
}

impl Context {
    fn new(
        direction: &'static Direction,
        key: &[u8; KEY_LEN],
        iv: &[u8; IV_LEN],
        additional_data: &[u8],
    ) -> Result<Self, PrimitiveFailed> {
        // SAFETY: no preconditions; null, returned if memory is exhausted, is handled.
        let raw = NonNull::new(unsafe { ffi::EVP_CIPHER_CTX_new() }).ok_or(direction.failed)?;
        let mut context = Self { raw, direction };
        // SAFETY: no preconditions; returns a pointer to a static.
        let cipher = unsafe { ffi::EVP_aes_256_gcm() };
        // The IV's length must be set before the IV, hence two calls of `init`.
        context.init(cipher, ptr::null(), ptr::null())?;
        context.control(ffi::EVP_CTRL_AEAD_SET_IVLEN, IV_LEN, ptr::null_mut())?;
        context.init(ptr::null(), key.as_ptr(), iv.as_ptr())?;
        context.update_piece(additional_data, ptr::null_mut())?;
        Ok(context)
    }

    fn check(&self, outcome: c_int) -> Result<(), PrimitiveFailed> {
        if outcome == SUCCESS { Ok(()) } else { Err(self.direction.failed) }
    }

    /// Each pointer must be null, or point to what the library reads: a static cipher, `KEY_LEN` bytes,
    /// `IV_LEN` bytes.
    fn init(
        &mut self,
        cipher: *const ffi::EVP_CIPHER,
        key: *const u8,
        iv: *const u8,
    ) -> Result<(), PrimitiveFailed> {
        // SAFETY: `raw` is live, and `new`, the only caller, passes valid pointers.
        let outcome = unsafe { (self.direction.init)(self.raw.as_ptr(), cipher, ptr::null_mut(), key, iv) };
        self.check(outcome)
    }

    /// `argument` is a length; `data` must be null or point to `argument` bytes.
    fn control(&mut self, command: c_int, argument: usize, data: *mut u8) -> Result<(), PrimitiveFailed> {
        let len = c_int::try_from(argument).map_err(|_| self.direction.failed)?;
        // SAFETY: `raw` is live; the callers in this module pass null or a buffer of `argument` bytes.
        let outcome = unsafe { ffi::EVP_CIPHER_CTX_ctrl(self.raw.as_ptr(), command, len, data.cast()) };
        self.check(outcome)
    }

    /// Encrypts or decrypts `input`, at most [`MAX_PIECE`] bytes, to `output`, which must point to
    /// `input.len()` bytes of memory (initialized or not). If `output` is null, hashes `input` as additional
    /// data.
    fn update_piece(&mut self, input: &[u8], output: *mut u8) -> Result<(), PrimitiveFailed> {
        let len = c_int::try_from(input.len()).map_err(|_| self.direction.failed)?;
        let mut written = 0;
        // SAFETY: `raw` is live and initialized; `input` has `len` readable bytes; the callers in this module
        // pass null or memory of `len` bytes. GCM is a stream mode: it writes exactly `len` bytes and does
        // not read the output.
        let outcome = unsafe {
            (self.direction.update)(self.raw.as_ptr(), output, &raw mut written, input.as_ptr(), len)
        };
        self.check(outcome)?;
        if written == len { Ok(()) } else { Err(self.direction.failed) }
    }

    /// Computes (sealing) or verifies (opening) the tag.
    fn finish(&mut self) -> Result<(), PrimitiveFailed> {
        // The interface requires a buffer, although stream modes do not write to it.
        let mut rest = [0; TAG_LEN];
        let mut written = 0;
        // SAFETY: `raw` is live and initialized; `rest` has the size of a block, the most that any mode
        // writes.
        let outcome =
            unsafe { (self.direction.finish)(self.raw.as_ptr(), rest.as_mut_ptr(), &raw mut written) };
        self.check(outcome)
    }
}

/// Encryption.
pub(crate) struct Seal(Context);

impl Seal {
    pub(crate) fn new(
        key: &[u8; KEY_LEN],
        iv: &[u8; IV_LEN],
        additional_data: &[u8],
    ) -> Result<Self, PrimitiveFailed> {
        Context::new(&SEAL, key, iv, additional_data).map(Self)
    }

    /// Appends the ciphertext of `plaintext` to `out`. The ciphertext is written into uninitialized capacity,
    /// because zeroing the capacity first would be another pass over the memory.
    pub(crate) fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), PrimitiveFailed> {
        out.reserve(plaintext.len());
        for piece in plaintext.chunks(MAX_PIECE) {
            self.0.update_piece(piece, out.spare_capacity_mut().as_mut_ptr().cast())?;
            let len = out.len() + piece.len();
            // SAFETY: `plaintext.len()` bytes were reserved, of which the pieces so far are a prefix, and
            // `update_piece` has just written `piece.len()` bytes at the old end.
            unsafe { out.set_len(len) };
        }
        Ok(())
    }

    /// Returns the tag.
    pub(crate) fn finish(mut self) -> Result<[u8; TAG_LEN], PrimitiveFailed> {
        let mut tag = [0; TAG_LEN];
        self.0.finish()?;
        self.0.control(ffi::EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag.as_mut_ptr())?;
        Ok(tag)
    }
}

/// Decryption. The output of [`Open::update`] is not authentic until [`Open::verify`] has returned `true`.
pub(crate) struct Open(Context);

impl Open {
    pub(crate) fn new(
        key: &[u8; KEY_LEN],
        iv: &[u8; IV_LEN],
        additional_data: &[u8],
    ) -> Result<Self, PrimitiveFailed> {
        Context::new(&OPEN, key, iv, additional_data).map(Self)
    }

    /// Decrypts `ciphertext` into `out`, which must have the same length.
    pub(crate) fn update(&mut self, ciphertext: &[u8], out: &mut [u8]) -> Result<(), PrimitiveFailed> {
        if ciphertext.len() != out.len() {
            return Err(self.0.direction.failed);
        }
        for (piece, out) in ciphertext.chunks(MAX_PIECE).zip(out.chunks_mut(MAX_PIECE)) {
            self.0.update_piece(piece, out.as_mut_ptr())?;
        }
        Ok(())
    }

    /// Whether the tag matches the ciphertext and the additional data.
    pub(crate) fn verify(mut self, tag: &[u8; TAG_LEN]) -> bool {
        let mut expected = *tag;
        self.0.control(ffi::EVP_CTRL_AEAD_SET_TAG, TAG_LEN, expected.as_mut_ptr()).is_ok()
            && self.0.finish().is_ok()
    }
}

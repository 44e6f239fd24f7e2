//! AES-256-GCM with a 32-byte IV, in pieces, for A1.
//!
//! Why this module is here, and unsafe: GCM allows IVs of any length and derives the first counter block of one that is
//! not 96 bits with GHASH (NIST SP 800-38D, 7.1). A1 has 256-bit IVs. `aws-lc-rs` offers 96-bit nonces only, and only
//! for whole messages; A1 must also be decrypted as it arrives. The C library underneath has both in its `EVP_CIPHER`
//! interface, which this module wraps in two safe types, [`Seal`] and [`Open`]. Nothing else in the crate is unsafe.

#![allow(unsafe_code, reason = "see the module's documentation")]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use aws_lc_sys as ffi;

use crate::error::PrimitiveFailed;
use crate::primitives::{KEY_LEN, TAG_LEN};

/// Bytes of A1's IV.
pub(crate) const IV_LEN: usize = 32;

/// Lengths are C `int`s; longer input is fed in pieces of this many bytes.
const MAX_PIECE: usize = 1 << 30;

/// What the library calls a success.
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

/// One direction's entry points.
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

/// An initialised cipher context. The library wipes its memory, key schedule and IV included, when it is freed.
struct Context {
    raw: NonNull<ffi::EVP_CIPHER_CTX>,
    direction: &'static Direction,
}

// SAFETY: the context is owned by this value alone, and the library ties contexts to no thread.
unsafe impl Send for Context {}

// SAFETY: every function that hands `raw` to the library takes `&mut self`.
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
        // SAFETY: no preconditions; null on lack of memory is handled.
        let raw = NonNull::new(unsafe { ffi::EVP_CIPHER_CTX_new() }).ok_or(direction.failed)?;
        let mut context = Self { raw, direction };
        // SAFETY: no preconditions; returns a pointer to a static.
        let cipher = unsafe { ffi::EVP_aes_256_gcm() };
        // In two steps, because the IV's length must be set before the IV.
        context.init(cipher, ptr::null(), ptr::null())?;
        context.control(ffi::EVP_CTRL_AEAD_SET_IVLEN, IV_LEN, ptr::null_mut())?;
        context.init(ptr::null(), key.as_ptr(), iv.as_ptr())?;
        context.update_piece(additional_data, ptr::null_mut())?;
        Ok(context)
    }

    fn check(&self, outcome: c_int) -> Result<(), PrimitiveFailed> {
        if outcome == SUCCESS { Ok(()) } else { Err(self.direction.failed) }
    }

    /// The pointers are each null or to as many bytes as the library reads: a static, `KEY_LEN`, `IV_LEN`.
    fn init(
        &mut self,
        cipher: *const ffi::EVP_CIPHER,
        key: *const u8,
        iv: *const u8,
    ) -> Result<(), PrimitiveFailed> {
        // SAFETY: `raw` is live; see the function's comment for the others, and `new`, its only caller, for the proof.
        let outcome = unsafe { (self.direction.init)(self.raw.as_ptr(), cipher, ptr::null_mut(), key, iv) };
        self.check(outcome)
    }

    /// `argument` is a length; `data` is null or points to as many bytes.
    fn control(&mut self, command: c_int, argument: usize, data: *mut u8) -> Result<(), PrimitiveFailed> {
        let argument = c_int::try_from(argument).map_err(|_| self.direction.failed)?;
        // SAFETY: `raw` is live; the callers in this module pass null or a buffer of `argument` bytes.
        let outcome = unsafe { ffi::EVP_CIPHER_CTX_ctrl(self.raw.as_ptr(), command, argument, data.cast()) };
        self.check(outcome)
    }

    /// Transforms `input` to `output`, which points to room for as many bytes (initialised or not), or hashes it as
    /// additional data if `output` is null. At most [`MAX_PIECE`] bytes.
    fn update_piece(&mut self, input: &[u8], output: *mut u8) -> Result<(), PrimitiveFailed> {
        let len = c_int::try_from(input.len()).map_err(|_| self.direction.failed)?;
        let mut written = 0;
        // SAFETY: `raw` is live and initialised; `input` is `len` readable bytes; the callers in this module pass null
        // or room for `len` bytes. GCM is a stream mode here: it writes `len` bytes, no more, and reads no output.
        let outcome = unsafe {
            (self.direction.update)(self.raw.as_ptr(), output, &raw mut written, input.as_ptr(), len)
        };
        self.check(outcome)?;
        if written == len { Ok(()) } else { Err(self.direction.failed) }
    }

    /// Computes (sealing) or verifies (opening) the tag.
    fn finish(&mut self) -> Result<(), PrimitiveFailed> {
        // Nothing is written there by a stream mode; a buffer all the same, as the interface asks for one.
        let mut rest = [0; TAG_LEN];
        let mut written = 0;
        // SAFETY: `raw` is live and initialised, `rest` has room for a block, the most that any mode writes.
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

    /// Appends the ciphertext of `plaintext` to `out`. Into uninitialised capacity, because zeroing it first would
    /// be one more pass over the memory.
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

    /// The tag.
    pub(crate) fn finish(mut self) -> Result<[u8; TAG_LEN], PrimitiveFailed> {
        let mut tag = [0; TAG_LEN];
        self.0.finish()?;
        self.0.control(ffi::EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag.as_mut_ptr())?;
        Ok(tag)
    }
}

/// Decryption. Nothing that [`Open::update`] writes is authentic before [`Open::verify`] has said so.
pub(crate) struct Open(Context);

impl Open {
    pub(crate) fn new(
        key: &[u8; KEY_LEN],
        iv: &[u8; IV_LEN],
        additional_data: &[u8],
    ) -> Result<Self, PrimitiveFailed> {
        Context::new(&OPEN, key, iv, additional_data).map(Self)
    }

    /// Decrypts `ciphertext` into `out`, of the same length.
    pub(crate) fn update(&mut self, ciphertext: &[u8], out: &mut [u8]) -> Result<(), PrimitiveFailed> {
        if ciphertext.len() != out.len() {
            return Err(self.0.direction.failed);
        }
        for (piece, out) in ciphertext.chunks(MAX_PIECE).zip(out.chunks_mut(MAX_PIECE)) {
            self.0.update_piece(piece, out.as_mut_ptr())?;
        }
        Ok(())
    }

    /// Whether everything, additional data included, is what was sealed.
    pub(crate) fn verify(mut self, tag: &[u8; TAG_LEN]) -> bool {
        let mut tag = *tag;
        self.0.control(ffi::EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag.as_mut_ptr()).is_ok()
            && self.0.finish().is_ok()
    }
}

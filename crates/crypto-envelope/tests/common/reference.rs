//! A second implementation of A1 and A2, written from `docs/encryption-format.md`. It shares no code with the
//! crate: GCM is RustCrypto's, HKDF is built from HMAC (RFC 5869, section 2) and KWP from AES blocks (RFC
//! 5649, sections 3 and 4). It is slow and handles whole messages only.

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockDecrypt, BlockEncrypt};
use aes_gcm::{Aes256Gcm, AesGcm};
use aws_lc_rs::hmac;

pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().try_into().unwrap()
}

pub fn hkdf(ikm: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let prk = hmac_sha256(if salt.is_empty() { &[0; 32] } else { salt }, ikm);
    hmac_sha256(&prk, &[info, &[1]].concat())
}

/// RFC 5649 for a 32-byte key: an initial value that contains the length, then the algorithm of RFC 3394,
/// 2.2.1.
pub fn kwp_wrap(kek: &[u8; 32], key: &[u8; 32]) -> [u8; 40] {
    let cipher = Aes256::new(kek.into());
    let mut a = *b"\xA6\x59\x59\xA6\x00\x00\x00\x20";
    let mut r = *key;
    for t in 0_u64..24 {
        let i = usize::try_from(t % 4).unwrap() * 8;
        let mut block = GenericArray::clone_from_slice(&[a, r[i..i + 8].try_into().unwrap()].concat());
        cipher.encrypt_block(&mut block);
        a = (u64::from_be_bytes(block[..8].try_into().unwrap()) ^ (t + 1)).to_be_bytes();
        r[i..i + 8].copy_from_slice(&block[8..]);
    }
    [a.as_slice(), &r].concat().try_into().unwrap()
}

pub fn kwp_unwrap(kek: &[u8; 32], wrapped: &[u8; 40]) -> Option<[u8; 32]> {
    let cipher = Aes256::new(kek.into());
    let mut a: [u8; 8] = wrapped[..8].try_into().unwrap();
    let mut r: [u8; 32] = wrapped[8..].try_into().unwrap();
    for t in (0_u64..24).rev() {
        let i = usize::try_from(t % 4).unwrap() * 8;
        let a_t = (u64::from_be_bytes(a) ^ (t + 1)).to_be_bytes();
        let mut block = GenericArray::clone_from_slice(&[a_t, r[i..i + 8].try_into().unwrap()].concat());
        cipher.decrypt_block(&mut block);
        a = block[..8].try_into().unwrap();
        r[i..i + 8].copy_from_slice(&block[8..]);
    }
    (a == *b"\xA6\x59\x59\xA6\x00\x00\x00\x20").then_some(r)
}

/// AES-256-CTR of 32 bytes, starting at the all-zero counter block.
fn ctr(master: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let cipher = Aes256::new(master.into());
    let mut stream = Vec::new();
    for counter in 0_u128..2 {
        let mut block = GenericArray::from(counter.to_be_bytes());
        cipher.encrypt_block(&mut block);
        stream.extend_from_slice(&block);
    }
    std::array::from_fn(|i| data[i] ^ stream[i])
}

type LongIvGcm = AesGcm<Aes256, U32>;

pub fn a1_seal(master: &[u8; 32], id: u32, data_key: &[u8; 32], iv: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let mut out = [b"A1", id.to_le_bytes().as_slice(), &ctr(master, iv), &ctr(master, data_key)].concat();
    let payload = Payload { msg: plaintext, aad: &out };
    let sealed = LongIvGcm::new(data_key.into()).encrypt(GenericArray::from_slice(iv), payload).unwrap();
    out.extend(sealed);
    out
}

/// Encrypts with the keys, IV and id of another envelope.
pub fn a1_seal_like(master: &[u8; 32], envelope: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let id = u32::from_le_bytes(envelope[2..6].try_into().unwrap());
    a1_seal(master, id, &ctr(master, &envelope[38..70]), &ctr(master, &envelope[6..38]), plaintext)
}

pub fn a1_open(master: &[u8; 32], envelope: &[u8]) -> Option<Vec<u8>> {
    let (header, sealed) = envelope.split_at_checked(70)?;
    let iv = ctr(master, &header[6..38]);
    let data_key = ctr(master, &header[38..]);
    let payload = Payload { msg: sealed, aad: header };
    LongIvGcm::new(&data_key.into()).decrypt(GenericArray::from_slice(&iv), payload).ok()
}

/// The inputs of an A2 envelope besides the plaintext; segments have 2^`k` bytes.
#[derive(Clone)]
pub struct A2Parts {
    pub master: [u8; 32],
    pub key_id: u32,
    pub k: u8,
    pub salt: [u8; 32],
    pub file_key: [u8; 32],
    pub uuid: String,
}

impl A2Parts {
    pub fn header(&self) -> Vec<u8> {
        let wrapping_key = hkdf(&self.master, &[], b"orthanc-object-storage A2 wrap");
        let wrapped = kwp_wrap(&wrapping_key, &self.file_key);
        [b"A2", self.key_id.to_le_bytes().as_slice(), &[1, self.k, 40, 0], &self.salt, &wrapped].concat()
    }

    pub fn content_key(&self, header: &[u8]) -> [u8; 32] {
        let info = [b"orthanc-object-storage A2 content", header, self.uuid.as_bytes()].concat();
        hkdf(&self.file_key, &self.salt, &info)
    }

    /// One segment with any index and last flag.
    pub fn segment(&self, header: &[u8], index: u64, last: bool, plaintext: &[u8]) -> Vec<u8> {
        let key = self.content_key(header);
        let nonce = [&[0; 3], index.to_be_bytes().as_slice(), &[u8::from(last)]].concat();
        Aes256Gcm::new(&key.into()).encrypt(GenericArray::from_slice(&nonce), plaintext).unwrap()
    }

    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let header = self.header();
        let mut out = header.clone();
        let chunks: Vec<&[u8]> =
            if plaintext.is_empty() { vec![&[]] } else { plaintext.chunks(1 << self.k).collect() };
        for (index, chunk) in chunks.iter().enumerate() {
            out.extend(self.segment(&header, index as u64, index + 1 == chunks.len(), chunk));
        }
        out
    }

    /// Recovers the parts of an envelope.
    pub fn of(master: &[u8; 32], uuid: &str, envelope: &[u8]) -> Option<Self> {
        let wrapping_key = hkdf(master, &[], b"orthanc-object-storage A2 wrap");
        Some(Self {
            master: *master,
            key_id: u32::from_le_bytes(envelope.get(2..6)?.try_into().ok()?),
            k: *envelope.get(7)?,
            salt: envelope.get(10..42)?.try_into().ok()?,
            file_key: kwp_unwrap(&wrapping_key, envelope.get(42..82)?.try_into().ok()?)?,
            uuid: uuid.to_owned(),
        })
    }
}

use cloud_http::pieces::piece_counts;
use crypto_envelope::{Format, KeyRing, MasterKey, decrypt};

use super::*;

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
const SEGMENT: usize = 64 * 1024;

fn ring() -> KeyRing {
    KeyRing::new(1, MasterKey::new(&[7; 32]).unwrap(), []).unwrap()
}

fn content(size: usize) -> Bytes {
    (0..size).map(|index| (index / 7).to_le_bytes()[0]).collect::<Vec<_>>().into()
}

/// Payloads of `content` in A1 and A2.
fn payloads(content: &Bytes) -> [Payload; 2] {
    let ring = ring();
    let begin = |buffer: &mut Vec<u8>| Encryptor::new(&ring, Format::A1, UUID, buffer);
    [whole(begin, content).unwrap(), a2(A2Envelope::new(&ring, UUID, content.clone()).unwrap()).unwrap()]
}

fn pieces_of(payload: &Payload) -> Vec<Bytes> {
    match payload {
        Payload::Pieces(pieces) => pieces.to_vec(),
        Payload::Made(source) => source.read(0..source.size()).unwrap(),
        Payload::Lent(_) | Payload::Owned(_) => panic!("one buffer"),
    }
}

#[test]
fn payloads_are_envelopes_in_few_pieces() {
    let sizes = [0, 1, SEGMENT, PIECE - MARGIN, PIECE - MARGIN + 1, PIECE, 1024 * 1024, 3_000_000];
    for size in sizes {
        let content = content(size);
        for payload in payloads(&content) {
            let pieces = pieces_of(&payload);
            assert!(pieces.len() <= 1 + size.div_ceil(PIECE - SEGMENT), "{size}: {}", pieces.len());
            assert!(decrypt(&ring(), UUID, &pieces.concat()).unwrap() == content, "{size}");
        }
    }
}

#[test]
fn large_a2_envelope_has_no_ciphertext_of_its_own() {
    let content = content(20_000_000);
    let [_, a2] = payloads(&content);
    let Payload::Made(source) = &a2 else { panic!("{a2:?}") };
    let whole = source.read(0..source.size()).unwrap().concat();
    assert!(!content.is_unique(), "the source borrows the plaintext");
    // Parts, which do not end with segments, also for a retry.
    for part in [0..5_242_880, 5_242_880..10_485_760, 5_242_880..10_485_760, 19_000_000..source.size()] {
        let range = usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
        assert!(source.read(part).unwrap().concat() == whole[range]);
    }
    drop(a2);
    assert!(content.is_unique());
}

#[test]
fn memory_is_used_again_for_the_next_envelope() {
    let content = content(10_000_000);
    // The first one allocates what the others use.
    pieces_of(&payloads(&content)[1]);
    let before = piece_counts();
    for _ in 0..8 {
        pieces_of(&payloads(&content)[1]);
    }
    let after = piece_counts();
    // Other tests in this process may take some.
    let envelope = content.len().div_ceil(PIECE - SEGMENT);
    assert!(after.allocated - before.allocated < 3 * envelope, "{before:?}, {after:?}");
}

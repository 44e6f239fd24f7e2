//! Speed of both envelopes in both directions, compared with plain AES-256-GCM of the same library.
//!
//! `cargo bench -p crypto-envelope` prints criterion's figures, then a table of rates and ratios (`-- --ratios-only`: the table
//! only). For the table, the contestants take turns within one loop and the best time of each counts, so that a busy machine
//! disturbs all of them alike.
//!
//! Plain AES-GCM works in place, in memory that is already mapped. An encryption into a new buffer also pays
//! for new pages: above some size the kernel maps and zeroes each of them, which costs more than AES. So
//! encryption is compared with plain AES-GCM both `in place` and `fresh` (into a new allocation), and each
//! envelope is written both to a new buffer and to a `reused` one, and A2 also in pieces, as uploads are. Decryption always writes to mapped memory.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput};
use crypto_envelope::{
    A2Envelope, Decryptor, Format, KeyRing, MasterKey, SliceTarget, encrypt, encrypt_into,
};

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
const SIZES: [(&str, usize); 3] = [("64 KiB", 64 << 10), ("512 KiB", 512 << 10), ("64 MiB", 64 << 20)];
/// How decryption receives its bytes: all at once, and in chunks as a network delivers them.
const CHUNKS: [(&str, usize); 2] = [("whole", usize::MAX), ("16 KiB chunks", 16 << 10)];
/// Size of a piece of an upload: four segments with their tags.
const PIECE: usize = 4 * (65536 + 16);
/// Names of the three references for the ratios.
const IN_PLACE: &str = "plain seal, in place";
const FRESH: &str = "plain seal, fresh";
const OPEN: &str = "plain open";

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap())
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

type Contestant<'a> = (String, Box<dyn FnMut() + 'a>);

fn plain(len: usize) -> Vec<Contestant<'static>> {
    let in_place_key = key();
    let mut buffer = vec![0x5A; len];
    let seal_in_place = move || {
        let tag =
            in_place_key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut buffer)).unwrap();
        let _ = black_box(tag);
    };
    let fresh_key = key();
    let source = vec![0x5A; len];
    let seal_fresh = move || {
        let mut out = vec![0; source.len()];
        let mut tag = [0; 16];
        let plaintext = black_box(&source);
        fresh_key
            .seal_out_of_place_scatter(nonce(), Aad::empty(), plaintext, &mut out, &[], &mut tag)
            .unwrap();
        black_box((out, tag));
    };
    let open_key = key();
    let mut sealed = vec![0x5A; len];
    open_key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut opened = vec![0; len];
    let open = move || {
        let (ciphertext, tag) = black_box(&sealed).split_at(len);
        open_key
            .open_separate_gather(nonce(), Aad::empty(), ciphertext, tag, black_box(&mut opened))
            .unwrap();
    };
    vec![
        (IN_PLACE.into(), Box::new(seal_in_place)),
        (FRESH.into(), Box::new(seal_fresh)),
        (OPEN.into(), Box::new(open)),
    ]
}

fn envelopes(ring: &KeyRing, format: Format, len: usize) -> Vec<Contestant<'_>> {
    let plaintext = vec![0x5A; len];
    let envelope = encrypt(ring, format, UUID, &plaintext).unwrap();
    let source = plaintext.clone();
    let fresh = move || drop(black_box(encrypt(ring, format, UUID, black_box(&source)).unwrap()));
    let mut buffer = Vec::new();
    let reused = move || encrypt_into(ring, format, UUID, black_box(&plaintext), &mut buffer).unwrap();
    let mut all: Vec<Contestant<'_>> = vec![
        (format!("{format} encrypt"), Box::new(fresh)),
        (format!("{format} encrypt, reused"), Box::new(reused)),
    ];
    for (how, chunk_len) in CHUNKS {
        let envelope = envelope.clone();
        let mut out = vec![0; len];
        let decrypt = move || {
            let target = SliceTarget::new(black_box(&mut out));
            let mut decryptor = Decryptor::new(ring, UUID, envelope.len() as u64, target);
            for chunk in black_box(&envelope).chunks(chunk_len.min(envelope.len())) {
                decryptor.push(chunk).unwrap();
            }
            black_box(decryptor.finish().unwrap());
        };
        all.push((format!("{format} decrypt, {how}"), Box::new(decrypt)));
    }
    all
}

/// Runs the contestants in turn for `time`; returns the best time of each in seconds.
fn best_of_turns(contestants: &mut [Contestant<'_>], time: Duration) -> Vec<f64> {
    let mut best = vec![f64::MAX; contestants.len()];
    let start = Instant::now();
    while start.elapsed() < time {
        for (best, (_, work)) in best.iter_mut().zip(contestants.iter_mut()) {
            let turn = Instant::now();
            work();
            *best = best.min(turn.elapsed().as_secs_f64());
        }
    }
    best
}

/// Encryption as uploads do it: range by range, into a piece of memory that is used again.
fn pieces(ring: &KeyRing, len: usize) -> Contestant<'_> {
    let plaintext = vec![0x5A; len];
    let mut piece = vec![0; PIECE];
    let encrypt = move || {
        let envelope = A2Envelope::new(ring, UUID, black_box(&plaintext)).unwrap();
        let mut start = 0;
        while start < envelope.envelope_len() {
            let end = envelope.end_of_range(start, PIECE);
            let out = &mut piece[..usize::try_from(end - start).unwrap()];
            envelope.write(start, out).unwrap();
            black_box(out);
            start = end;
        }
    };
    ("A2 encrypt, in pieces".into(), Box::new(encrypt))
}

/// All contestants at one size.
fn contestants(ring: &KeyRing, len: usize) -> Vec<Contestant<'_>> {
    let mut all = plain(len);
    all.extend([Format::A1, Format::A2].into_iter().flat_map(|format| envelopes(ring, format, len)));
    all.push(pieces(ring, len));
    all
}

fn criterion_figures(ring: &KeyRing) {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(2)).configure_from_args();
    for (label, len) in SIZES {
        let mut group = criterion.benchmark_group(label);
        group.throughput(Throughput::Bytes(len as u64)).sample_size(20);
        for (name, mut work) in contestants(ring, len) {
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(&mut work));
        }
    }
    criterion.final_summary();
}

fn ratios(ring: &KeyRing) {
    println!("\n{:<26} {:>9} {:>9} {:>10} {:>10}", "", "", "GB/s", "in place", "fresh");
    for (label, len) in SIZES {
        let mut all = contestants(ring, len);
        let best = best_of_turns(&mut all, Duration::from_secs(8));
        let time_of = |wanted: &str| {
            let found = all.iter().zip(&best).find(|((name, _), _)| name == wanted);
            *found.unwrap().1
        };
        for ((name, _), time) in all.iter().zip(&best) {
            let rate = len as f64 / time / 1e9;
            let opens = name == OPEN || name.contains("decrypt");
            let in_place = time_of(if opens { OPEN } else { IN_PLACE }) / time;
            print!("{name:<26} {label:>9} {rate:>9.2} {in_place:>10.2}");
            println!("{}", if opens { String::new() } else { format!(" {:>10.2}", time_of(FRESH) / time) });
        }
    }
}

fn main() {
    let ring = KeyRing::new(1, MasterKey::new(&[7; 32]).unwrap(), []).unwrap();
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    if !has("--ratios-only") {
        criterion_figures(&ring);
    }
    // `cargo test --benches` and `--list` only check that the benchmark starts.
    if has("--bench") || has("--ratios-only") {
        ratios(&ring);
    }
}

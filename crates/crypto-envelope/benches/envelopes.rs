//! Both envelopes, both ways, beside the bare AES-256-GCM call of the same library on buffers of the same size.
//!
//! `cargo bench -p crypto-envelope` prints criterion's figures, then a table of ratios. For the table the contestants
//! take turns within one loop and the best time of each counts, so that a busy machine disturbs all of them alike.
//!
//! What the bare call has to be compared with: it works in place in memory that is already mapped, with a key that is
//! already set up. An encryption returns new memory, and above some size the kernel maps and zeroes each new page, which
//! costs more than AES. So there are two bare figures for encryption: `in place`, and `fresh` (out of place into a new
//! allocation); and two for each envelope: into a new buffer, and into a `reused` one. Decryption writes to the caller's memory, already mapped in both.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput};
use crypto_envelope::{Decryptor, Format, KeyRing, MasterKey, SliceTarget, encrypt, encrypt_into};

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
const SIZES: [(&str, usize); 3] = [("64 KiB", 64 << 10), ("512 KiB", 512 << 10), ("64 MiB", 64 << 20)];
/// How decryption gets its bytes: at once, and as a network hands them over.
const CHUNKS: [(&str, usize); 2] = [("whole", usize::MAX), ("16 KiB chunks", 16 << 10)];

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap())
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

type Work<'a> = Box<dyn FnMut() + 'a>;

/// Everything that is measured at one size; the first two are the yardsticks.
fn contestants<'a>(ring: &'a KeyRing, len: usize) -> Vec<(String, Work<'a>)> {
    let plaintext = vec![0x5A; len];
    let mut all: Vec<(String, Work<'a>)> = Vec::new();

    let (bare, mut buffer) = (key(), plaintext.clone());
    all.push((
        "bare seal, in place".into(),
        Box::new(move || {
            let _ = black_box(
                bare.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut buffer)).unwrap(),
            );
        }),
    ));
    let (bare, source) = (key(), plaintext.clone());
    all.push((
        "bare seal, fresh".into(),
        Box::new(move || {
            let mut out = vec![0; source.len()];
            let mut tag = [0; 16];
            bare.seal_out_of_place_scatter(
                nonce(),
                Aad::empty(),
                black_box(&source),
                &mut out,
                &[],
                &mut tag,
            )
            .unwrap();
            black_box((out, tag));
        }),
    ));
    for format in [Format::A1, Format::A2] {
        let source = plaintext.clone();
        all.push((
            format!("{format} encrypt"),
            Box::new(move || drop(black_box(encrypt(ring, format, UUID, black_box(&source)).unwrap()))),
        ));
    }

    for format in [Format::A1, Format::A2] {
        let (source, mut envelope) = (plaintext.clone(), Vec::new());
        all.push((
            format!("{format} encrypt, reused"),
            Box::new(move || {
                encrypt_into(ring, format, UUID, black_box(&source), &mut envelope).unwrap();
                black_box(&envelope);
            }),
        ));
    }

    let (bare, mut sealed) = (key(), plaintext.clone());
    bare.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut out = vec![0; len];
    all.push((
        "bare open".into(),
        Box::new(move || {
            let (ciphertext, tag) = sealed.split_at(len);
            bare.open_separate_gather(nonce(), Aad::empty(), black_box(ciphertext), tag, black_box(&mut out))
                .unwrap();
        }),
    ));
    for format in [Format::A1, Format::A2] {
        for (how, chunk_len) in CHUNKS {
            let envelope = encrypt(ring, format, UUID, &plaintext).unwrap();
            let mut out = vec![0; len];
            all.push((
                format!("{format} decrypt, {how}"),
                Box::new(move || {
                    let target = SliceTarget::new(black_box(&mut out));
                    let mut decryptor = Decryptor::new(ring, UUID, envelope.len() as u64, target);
                    for chunk in black_box(&envelope).chunks(chunk_len.min(envelope.len())) {
                        decryptor.push(chunk).unwrap();
                    }
                    black_box(decryptor.finish().unwrap());
                }),
            ));
        }
    }
    all
}

fn best_of_turns(works: &mut [(String, Work<'_>)], time: Duration) -> Vec<Duration> {
    let mut best = vec![Duration::MAX; works.len()];
    let start = Instant::now();
    while start.elapsed() < time {
        for (best, (_, work)) in best.iter_mut().zip(works.iter_mut()) {
            let start = Instant::now();
            work();
            *best = (*best).min(start.elapsed());
        }
    }
    best
}

fn ratios(ring: &KeyRing) {
    println!("\n{:<26} {:>9} {:>9} {:>10} {:>10}", "", "", "GB/s", "in place", "fresh");
    for (label, len) in SIZES {
        let mut works = contestants(ring, len);
        let best = best_of_turns(&mut works, Duration::from_secs(8));
        let [in_place, fresh] = [best[0], best[1]].map(|time| time.as_secs_f64());
        let open = best[6].as_secs_f64();
        for ((name, _), time) in works.iter().zip(&best) {
            let time = time.as_secs_f64();
            let is_decryption = name.contains("decrypt") || name.contains("open");
            let rate = len as f64 / time / 1e9;
            if is_decryption {
                println!("{name:<26} {label:>9} {rate:>9.2} {:>10.2}", open / time);
            } else {
                println!(
                    "{name:<26} {label:>9} {rate:>9.2} {:>10.2} {:>10.2}",
                    in_place / time,
                    fresh / time
                );
            }
        }
    }
}

fn main() {
    let ring = KeyRing::new(1, MasterKey::new(&[7; 32]).unwrap(), []).unwrap();
    if !std::env::args().any(|argument| argument == "--ratios-only") {
        let mut criterion =
            Criterion::default().measurement_time(Duration::from_secs(2)).configure_from_args();
        for (label, len) in SIZES {
            let mut group = criterion.benchmark_group(label);
            group.throughput(Throughput::Bytes(len as u64)).sample_size(20);
            for (name, mut work) in contestants(&ring, len) {
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(&mut work));
            }
        }
        criterion.final_summary();
    }
    // `cargo test --benches` and `--list` only want to know that it runs.
    if std::env::args().any(|argument| argument == "--bench" || argument == "--ratios-only") {
        ratios(&ring);
    }
}

//! How fast the server is, measured with `object_store` on loopback, in one process.
//!
//! `cargo run --release -p fake-cloud --example speed`

use std::time::{Duration, Instant};

use bytes::Bytes;
use fake_cloud::{BucketServer, Options};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LARGE: usize = 100_000_000;
const LARGE_TIMES: usize = 10;
const SMALL: usize = 130_000;
const SMALL_TIMES: usize = 1000;

fn client(server: &BucketServer, unsigned: bool) -> Outcome<AmazonS3> {
    Ok(AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_access_key_id("test-access-key")
        .with_secret_access_key("test-secret-key")
        .with_unsigned_payload(unsigned)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .build()?)
}

async fn put(client: &AmazonS3, key: &str, content: Bytes) -> Outcome<()> {
    client.put(&Path::parse(key)?, content.into()).await?;
    Ok(())
}

async fn get(client: &AmazonS3, key: &str) -> Outcome<()> {
    let mut stream = client.get(&Path::parse(key)?).await?.into_stream();
    let mut read = 0;
    while let Some(chunk) = stream.try_next().await? {
        read += chunk.len();
    }
    assert!(read == LARGE || read == SMALL, "{read} bytes came");
    Ok(())
}

async fn small<F: Future<Output = Outcome<()>>>(
    at_once: usize,
    request: impl Fn(String) -> F,
) -> Outcome<()> {
    stream::iter(0..SMALL_TIMES)
        .map(|i| request(format!("small-{i}")))
        .buffer_unordered(at_once)
        .try_collect::<()>()
        .await
}

/// CPU time of this process, client and server together.
fn cpu() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = fields.iter().skip(11).take(2).map(|ticks| ticks.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

async fn measure(
    name: &str,
    bytes: usize,
    requests: usize,
    work: impl Future<Output = Outcome<()>>,
) -> Outcome<()> {
    let (start, cpu_start) = (Instant::now(), cpu()?);
    work.await?;
    let (elapsed, used) = (start.elapsed(), cpu()?.saturating_sub(cpu_start));
    #[expect(clippy::cast_precision_loss)]
    let speed = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    println!(
        "{name:34} {:8.3} s {speed:8.0} MB/s {:8.0} us each, CPU {used:.2?}",
        elapsed.as_secs_f64(),
        elapsed.as_secs_f64() * 1e6 / requests as f64
    );
    Ok(())
}

async fn run() -> Outcome<()> {
    let server = BucketServer::start(Options::default())?;
    let unsigned = client(&server, true)?;
    let signed = client(&server, false)?;
    let large: Bytes = (0..LARGE).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>().into();
    let some = large.slice(..SMALL);
    put(&unsigned, "large", large.clone()).await?;
    let bytes = LARGE * LARGE_TIMES;
    measure("PUT 100 MB, payload unsigned", bytes, LARGE_TIMES, async {
        for _ in 0..LARGE_TIMES {
            put(&unsigned, "large", large.clone()).await?;
        }
        Ok(())
    })
    .await?;
    measure("PUT 100 MB, payload signed", bytes, LARGE_TIMES, async {
        for _ in 0..LARGE_TIMES {
            put(&signed, "large", large.clone()).await?;
        }
        Ok(())
    })
    .await?;
    measure("GET 100 MB", bytes, LARGE_TIMES, async {
        for _ in 0..LARGE_TIMES {
            get(&unsigned, "large").await?;
        }
        Ok(())
    })
    .await?;
    let bytes = SMALL * SMALL_TIMES;
    for at_once in [1, 8] {
        let name = format!("PUT 130 kB, {at_once} at once, unsigned");
        let work = small(at_once, |key| {
            let (client, some) = (&unsigned, some.clone());
            async move { put(client, &key, some).await }
        });
        measure(&name, bytes, SMALL_TIMES, work).await?;
        let name = format!("GET 130 kB, {at_once} at once");
        let work = small(at_once, |key| {
            let client = &unsigned;
            async move { get(client, &key).await }
        });
        measure(&name, bytes, SMALL_TIMES, work).await?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(async { tokio::spawn(run()).await? })
}

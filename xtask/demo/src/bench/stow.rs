//! `cargo xtask bench --stow`: the STOW-RS gateway, and a bare S3 client that stores the same instances with as many
//! requests at once, in turns. Zero latency shows what the gateway costs on this machine, where the client, Orthanc and
//! the server share the processor; 20 ms are like a bucket in a data center.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fake_cloud::{Fault, FaultRule, Operation};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt};
use real_orthanc::Orthanc;
use real_orthanc::dicom::Study;
use serde_json::json;
use tokio::runtime::Runtime;
use xtask::options::Bench;

use super::report::{highest, lowest, median};
use crate::cloud::Cloud;
use crate::{interrupt, load};

/// Requests at once: those of the gateway (`UPLOADS` in its `room.rs`).
const PARALLEL: usize = 16;
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(20)];
/// The goal for the speed of the gateway, compared with that of the client.
const GOAL: f64 = 0.7;
const BOUNDARY: &str = "benchmark";

/// Rates of one turn of both, in instances a second.
struct Turn {
    gateway: f64,
    client: f64,
    /// Peak memory of Orthanc in bytes.
    memory: u64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    ensure!(options.plugin == "aws-s3", "--stow requires --plugin aws-s3");
    eprintln!("generating files");
    let files = Study(1).ct_series(options.instances, 256, 256).collect::<Result<Vec<_>, _>>()?;
    let files: Vec<Bytes> = files.into_iter().map(Bytes::from).collect();
    let body = multipart(&files);
    println!(
        "The STOW-RS gateway (A) and a bare S3 client with {PARALLEL} requests at once (B), in turns: {} rounds with {} \
         instances of 130 kB\nin one request. A/B is the median (lowest to highest). The goal is {GOAL}.\n\n\
         | latency | A | B | A/B | peak memory of Orthanc |\n|---|---:|---:|---|---:|",
        options.rounds, options.instances
    );
    for latency in LATENCIES {
        let turns = measure(options, &files, &body, latency)?;
        let ratios = || turns.iter().map(|turn| turn.gateway / turn.client);
        println!(
            "| {} ms | {:.0} 1/s | {:.0} 1/s | {:.2} ({:.2} to {:.2}) | {:.0} MB |",
            latency.as_millis(),
            median(turns.iter().map(|turn| turn.gateway)),
            median(turns.iter().map(|turn| turn.client)),
            median(ratios()),
            lowest(ratios()),
            highest(ratios()),
            highest(turns.iter().map(Turn::megabytes)),
        );
    }
    Ok(())
}

impl Turn {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn megabytes(&self) -> f64 {
        self.memory as f64 / 1e6
    }
}

fn measure(options: &Bench, files: &[Bytes], body: &[u8], latency: Duration) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for round in 0..=options.rounds {
        interrupt::check()?;
        let mut cloud = Cloud::start(options.plugin)?;
        cloud.set("StowRs", json!({"Enable": true}));
        let orthanc = cloud.orthanc(None)?;
        if !latency.is_zero() {
            let rule = FaultRule::new(Fault::Delay(latency)).on(Operation::PutObject);
            cloud.server.faults().push(rule.times(usize::MAX));
        }
        let runtime = Runtime::new()?;
        let client = client(&cloud)?;
        // Opens connections.
        send(&orthanc, body)?;
        runtime.block_on(put(&client, files))?;
        let both = |first: bool| -> Result<f64> {
            let start = Instant::now();
            if first {
                send(&orthanc, body)?;
            } else {
                runtime.block_on(put(&client, files))?;
            };
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            Ok(files.len() as f64 / start.elapsed().as_secs_f64())
        };
        let (gateway, client) = match round % 2 {
            0 => (both(true)?, both(false)?),
            _ => {
                let client = both(false)?;
                (both(true)?, client)
            }
        };
        turns.push(Turn { gateway, client, memory: orthanc.peak_memory_bytes()? });
    }
    Ok(turns)
}

/// Sends the request, which must store everything.
fn send(orthanc: &Orthanc, body: &[u8]) -> Result<()> {
    let content_type = format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}");
    load::run(orthanc.http_port(), 1, 1, |connection, _| {
        let (status, answer) = connection.post_in_chunks("/stow-rs/studies", &content_type, body)?;
        ensure!(status == 200, "STOW-RS: HTTP status {status}, {}", String::from_utf8_lossy(&answer));
        Ok(())
    })
    .map(drop)
}

fn multipart(files: &[Bytes]) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        body.extend_from_slice(
            format!("\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(file);
    }
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// A client of the same bucket, without anything of this project.
fn client(cloud: &Cloud) -> Result<AmazonS3> {
    let option = |name| cloud.option(name).with_context(|| format!("the section has no {name}"));
    let client = AmazonS3Builder::new()
        .with_bucket_name(option("BucketName")?)
        .with_region(option("Region")?)
        .with_endpoint(option("Endpoint")?)
        .with_access_key_id(option("AccessKey")?)
        .with_secret_access_key(option("SecretKey")?)
        .with_client_options(ClientOptions::new().with_allow_http(true));
    Ok(client.build()?)
}

async fn put(client: &AmazonS3, files: &[Bytes]) -> Result<()> {
    stream::iter(files.iter().enumerate())
        .map(|(index, file)| async move {
            client.put(&Path::from(format!("bare/{index}.dcm")), file.clone().into()).await
        })
        .buffer_unordered(PARALLEL)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

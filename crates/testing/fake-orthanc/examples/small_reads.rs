//! What a small read costs in the process of Orthanc: processor time and context switches for each, with the server in a
//! process of its own. Several builds of a plugin take turns, so that their figures can be compared:
//!
//! ```sh
//! cargo run --example small_reads -p fake-orthanc -- before.so target/release/libOrthancAwsS3Storage.so
//! ```
//!
//! Environment variables: `THREADS` (1), `READS` for each turn (2000), `TURNS` (5), `SIZE` in bytes (135000), `ORTHANC`, the
//! version (1.10.1; from 1.12.8 on, whole files are read as ranges), `CLOUD` (`aws-s3`), `OPTIONS` of the section (JSON).
#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used, reason = "a tool for developers")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, mem, thread};

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions};
use serde_json::{Value, json};

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
const CONTENT_TYPE: i32 = 1;

fn main() {
    let cloud = env::var("CLOUD").unwrap_or_else(|_| "aws-s3".to_owned());
    let libraries: Vec<String> = env::args().skip(1).collect();
    if libraries.is_empty() {
        return serve(&cloud);
    }
    let mut server = Command::new(env::current_exe().unwrap())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut section: Value = serde_json::from_str(&line).unwrap();
    let options = env::var("OPTIONS").map_or_else(|_| json!({}), |text| text.parse().unwrap());
    section.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let name = match cloud.as_str() {
        "azure-blob" => "AzureBlobStorage",
        "google-cloud" => "GoogleCloudStorage",
        _ => "AwsS3Storage",
    };
    measure(&libraries, &json!({ name: section }));
    drop(server.stdin.take());
    server.wait().unwrap();
}

/// Serves until the parent closes the standard input.
fn serve(cloud: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (_server, section) =
        fake_cloud::serve(cloud, folder.path(), |path| path.display().to_string()).unwrap();
    println!("{section}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn measure(libraries: &[String], configuration: &Value) {
    let threads = number("THREADS", 1);
    let reads = number("READS", 2000) / threads;
    let size = number("SIZE", 135_000);
    let version = env::var("ORTHANC").unwrap_or_else(|_| "1.10.1".to_owned());
    let content: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
    let plugins: Vec<FakeOrthanc> = libraries
        .iter()
        .map(|library| {
            let options =
                FakeOrthancOptions { version: version.clone(), configuration: configuration.clone() };
            FakeOrthanc::load(library, options).unwrap()
        })
        .collect();
    plugins[0].create(UUID, CONTENT_TYPE, &content).unwrap();
    let read = |plugin: &FakeOrthanc| {
        for _ in 0..reads {
            let read = match version.as_str() {
                "1.10.1" => plugin.read_whole(UUID, CONTENT_TYPE),
                _ => plugin.read_range(UUID, CONTENT_TYPE, 0, size),
            };
            assert_eq!(read.unwrap().len(), size);
        }
    };
    for plugin in &plugins {
        assert_eq!(plugin.read_whole(UUID, CONTENT_TYPE).unwrap(), content);
    }
    let mut all = vec![Vec::new(); plugins.len()];
    for _ in 0..number("TURNS", 5) {
        for (plugin, costs) in plugins.iter().zip(&mut all) {
            let start = Instant::now();
            let before = usage();
            thread::scope(|scope| {
                (0..threads).for_each(|_| drop(scope.spawn(|| read(plugin))));
            });
            let [time, switches] = [0, 1].map(|index| usage()[index] - before[index]);
            let elapsed = start.elapsed().as_secs_f64();
            costs.push([time, switches, elapsed * 1e6].map(|value| value / (reads * threads) as f64));
        }
    }
    for (library, costs) in libraries.iter().zip(&all) {
        let [time, switches, elapsed] = [0, 1, 2].map(|index| {
            let mut values: Vec<f64> = costs.iter().map(|cost| cost[index]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        });
        println!(
            "{library}: {time:.1} µs of CPU, {switches:.2} voluntary context switches, {elapsed:.1} µs for each read"
        );
    }
}

/// Microseconds of processor time and number of voluntary context switches of this process.
fn usage() -> [f64; 2] {
    // SAFETY: all bytes of this struct may be zero.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the struct lives until the call returns.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    [micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_nvcsw as f64]
}

//! How long Orthanc's clients wait while the server is unreachable, with the default options: a modality that waits for 30
//! seconds gets its answer.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::{SendError, dicom_send};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{request, with};
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        modality_gets_an_answer_from_a_silent_server;
    Long:
        modality_gets_an_answer_from_a_closed_port,
        modality_gets_an_answer_from_a_busy_server,
        modality_gets_an_answer_without_a_route,
}

/// What a modality waits for an answer.
const MODALITY: Duration = Duration::from_secs(30);
/// What the failures of the options `OutageTimeout` and the look at the object take, and Orthanc's own work.
const LONGEST: Duration = Duration::from_secs(28);

/// Stores, reads and sends by DICOM at once. Returns how long each took to fail.
fn time_failures<C: Cloud>(fixture: &Fixture<C>, instance: &str) -> Result<[Duration; 3]> {
    let folder = tempfile::tempdir()?;
    let sent = folder.path().join("sent.dcm");
    std::fs::write(&sent, &slices(1, 1)?[0])?;
    let other = &slices(2, 1)?[0];
    let timed = |work: &(dyn Fn() -> Result<()> + Sync)| {
        let start = Instant::now();
        work().map(|()| start.elapsed())
    };
    let status = |status: u16| if status == 500 { Ok(()) } else { Err(anyhow!("HTTP status {status}")) };
    let joined = |thread: thread::ScopedJoinHandle<'_, Result<Duration>>| {
        thread.join().map_err(|_| anyhow!("panicked"))?
    };
    let times = thread::scope(|scope| {
        let store = scope.spawn(|| timed(&|| status(fixture.rest().post("/instances", other)?.status)));
        let path = format!("/instances/{instance}/file");
        let read = scope.spawn(move || timed(&|| status(fixture.rest().get(&path)?.status)));
        let send = scope.spawn(|| {
            timed(&|| match dicom_send(&fixture.orthanc, &[&sent]) {
                Err(SendError::Refused(text)) if !text.contains("timeout") => Ok(()),
                other => Err(anyhow!("{other:?}\n{}", fixture.orthanc.log())),
            })
        });
        Ok::<_, anyhow::Error>([joined(store)?, joined(read)?, joined(send)?])
    })?;
    println!("store, read, C-STORE: {times:.1?}");
    let log = fixture.log_lines('E').join("\n");
    ensure!(times.iter().all(|time| *time < LONGEST.min(MODALITY)), "{times:?}\n{log}");
    ensure!(times.iter().all(|time| *time > Duration::from_secs(10)), "a short outage: {times:?}\n{log}");
    assert_eq!(fixture.log_lines('E').len(), 3, "{log}");
    Ok(times)
}

fn behind_broken_proxy<C: Cloud>(break_it: impl Fn(&real_orthanc::Proxy)) -> Result<()> {
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({}))?;
    let file = &slices(0, 1)?[0];
    let uploaded = fixture.rest().upload(file)?;
    break_it(&proxy);
    time_failures(&fixture, &uploaded.id)?;
    // One warning about all three, or none if no request was sent twice.
    let warnings = || fixture.log_lines('W').iter().filter(|line| line.contains("no success for")).count();
    ensure!(warnings() <= 1, "{:#?}", fixture.log_lines('W'));
    let warned = warnings() > 0;
    proxy.mend();
    ensure!(fixture.rest().file(&uploaded.id)? == *file, "the bytes differ");
    let ended = || fixture.log_lines('W').iter().filter(|line| line.contains("answers again")).count();
    assert_eq!(ended(), usize::from(warned), "{:#?}", fixture.log_lines('W'));
    Ok(())
}

fn modality_gets_an_answer_from_a_silent_server<C: Cloud>() -> Result<()> {
    behind_broken_proxy::<C>(real_orthanc::Proxy::freeze)
}

fn modality_gets_an_answer_from_a_closed_port<C: Cloud>() -> Result<()> {
    behind_broken_proxy::<C>(real_orthanc::Proxy::cut)
}

fn modality_gets_an_answer_from_a_busy_server<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let uploaded = fixture.rest().upload(&slices(0, 1)?[0])?;
    for operation in [request::CREATE, request::READ, request::READ_RANGE] {
        let rule = FaultRule::new(Fault::slow_down()).on(operation).times(usize::MAX);
        fixture.bucket.faults().push(rule);
    }
    time_failures(&fixture, &uploaded.id)?;
    let waiting = |line: &&String| line.contains("no success for");
    assert_eq!(fixture.log_lines('W').iter().filter(waiting).count(), 1, "{:#?}", fixture.log_lines('W'));
    Ok(())
}

/// The system does not answer further connections to a port whose queue is full, as if the packets were lost.
fn modality_gets_an_answer_without_a_route<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let uploaded = fixture.rest().upload(&slices(0, 1)?[0])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut queue = Vec::new();
    while let Ok(opened) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queue.push(opened);
        ensure!(queue.len() < 10_000, "the queue does not fill");
    }
    let section = with(C::section(&format!("http://{address}")), &json!({}));
    fixture.orthanc.configure(|builder| builder.section(C::SECTION, section));
    fixture.restart()?;
    time_failures(&fixture, &uploaded.id)?;
    Ok(())
}

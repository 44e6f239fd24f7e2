//! The table of mistakes in `docs/troubleshooting.md`. Each is made in a real Orthanc, whose log must have its line.

mod azure;
mod document;
mod every_cloud;
mod google;
mod s3;
mod setup;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::BucketServer;
use real_orthanc::StartError;

use self::document::{Document, is_in};
use self::setup::Setup;
use crate::Cloud;
use crate::fixture::{assert_no_secret, library};
use crate::orthanc::fixture::{log_lines, slice};

tests! { Newest: each_documented_mistake_has_its_line }

/// Orthancs that run at once. Most of them wait for a process to start or to end.
const AT_ONCE: usize = 3;

/// The tables of this folder, by the plugin's section. The first is for the cloud that gets the whole suite.
const TABLES: [(Option<&str>, &[Mistake]); 4] = [
    (None, every_cloud::MISTAKES),
    (Some("AwsS3Storage"), s3::MISTAKES),
    (Some("AzureBlobStorage"), azure::MISTAKES),
    (Some("GoogleCloudStorage"), google::MISTAKES),
];

type Make = fn(&mut Setup<'_>) -> Result<()>;

/// A mistake that an administrator can make.
#[derive(Debug)]
struct Mistake {
    /// The messages about it, as the document quotes them.
    messages: &'static [&'static str],
    /// Their level, `E` or `W`.
    level: char,
    /// Whether Orthanc starts nevertheless.
    starts: bool,
    /// Whether the plugin logs the messages, not Orthanc.
    is_of_the_plugin: bool,
    /// The configuration before the mistake, with which an instance was stored that cannot be read afterwards.
    before: Option<Make>,
    make: Make,
}

/// A mistake that prevents the start with this error line.
const fn stops(messages: &'static [&'static str], make: Make) -> Mistake {
    Mistake { messages, level: 'E', starts: false, is_of_the_plugin: true, before: None, make }
}

/// A mistake with this error line that does not prevent the start.
const fn reports(messages: &'static [&'static str], make: Make) -> Mistake {
    Mistake { starts: true, ..stops(messages, make) }
}

/// A mistake that causes these warnings.
const fn warns(messages: &'static [&'static str], make: Make) -> Mistake {
    Mistake { level: 'W', ..reports(messages, make) }
}

fn each_documented_mistake_has_its_line<C: Cloud>() -> Result<()> {
    // If it cannot be built, that is one error.
    library::<C>()?;
    let document = Document::read()?;
    let made: BTreeSet<&str> =
        TABLES.iter().flat_map(|(_, table)| *table).flat_map(|mistake| mistake.messages).copied().collect();
    let documented: BTreeSet<&str> = document.mistakes.keys().map(String::as_str).collect();
    let only = |one: &BTreeSet<&str>, other: &BTreeSet<&str>| format!("{:#?}", one - other);
    ensure!(documented.is_subset(&made), "documented, but not made here: {}", only(&documented, &made));
    ensure!(made.is_subset(&documented), "made here, but not documented: {}", only(&made, &documented));

    let is_needed = |section: Option<&str>| section.map_or(C::WHOLE_SUITE, |section| section == C::SECTION);
    let mistakes = TABLES.iter().filter(|(section, _)| is_needed(*section)).flat_map(|(_, table)| *table);
    let mistakes = Mutex::new(mistakes);
    let failures = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        let server = C::server()?;
        loop {
            let next = mistakes.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(mistake) = next else { return Ok(()) };
            if let Err(error) = make::<C>(mistake, &server, &document) {
                let failure = format!("{:?}: {error:#}", mistake.messages);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
            server.faults().clear();
            server.clear();
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("panicked")))
    })?;
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failures.is_empty(), "{} mistakes:\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

/// Makes a mistake, and checks Orthanc's log.
fn make<C: Cloud>(mistake: &Mistake, server: &BucketServer, document: &Document) -> Result<()> {
    let (starts, log) = log_of::<C>(mistake, server)?;
    ensure!(starts == mistake.starts, "starts: {starts}\n{log}");
    check::<C>(mistake, document, &log).with_context(|| log.clone())?;
    // A message may describe the form of a secret.
    let rest = mistake.messages.iter().fold(log, |log, message| log.replace(message, ""));
    assert_no_secret::<C>(&rest, Some(setup::SECRET.to_owned()));
    Ok(())
}

/// Returns whether Orthanc starts with a mistake, and its log.
fn log_of<C: Cloud>(mistake: &Mistake, server: &BucketServer) -> Result<(bool, String)> {
    let mut setup = Setup::new::<C>(server)?;
    let Some(before) = mistake.before else {
        (mistake.make)(&mut setup)?;
        return match setup.builder::<C>()?.start() {
            Ok(orthanc) => Ok((true, orthanc.log())),
            Err(error) => log_of_end(error),
        };
    };
    let mut first = Setup::new::<C>(server)?;
    before(&mut first)?;
    let mut orthanc = first.builder::<C>()?.start()?;
    let stored = orthanc.rest().upload(&slice()?)?;
    orthanc.kill()?;
    (mistake.make)(&mut setup)?;
    let builder = setup.builder::<C>()?;
    orthanc.configure(|_| builder);
    if let Err(error) = orthanc.start_again() {
        return log_of_end(error);
    }
    let answer = orthanc.rest().get(&format!("{}/file", stored.path))?;
    ensure!(answer.status != 200, "the instance was read");
    Ok((true, orthanc.log()))
}

/// Returns the log of an Orthanc that has ended with an error.
fn log_of_end(error: StartError) -> Result<(bool, String)> {
    let StartError::Exited { status, log } = error else { return Err(error.into()) };
    ensure!(!status.success(), "Orthanc has ended without an error:\n{log}");
    Ok((false, log))
}

fn check<C: Cloud>(mistake: &Mistake, document: &Document, log: &str) -> Result<()> {
    let lines = |level: char, of_the_plugin: bool| -> Vec<&str> {
        let is_own = |line: &&str| !log_lines::<C>(line, level).is_empty();
        let is_wanted = |line: &&str| line.starts_with(level) && is_own(line) == of_the_plugin;
        log.lines().filter(is_wanted).collect()
    };
    let candidates = lines(mistake.level, mistake.is_of_the_plugin);
    for message in mistake.messages {
        let found = candidates.iter().filter(|line| is_in(message, line)).count();
        ensure!(found == 1, "{found} lines have {message:?}");
        ensure!(document.mistakes[*message] == mistake.level, "the document says another level");
    }
    let errors = lines('E', true);
    let expected = usize::from(mistake.level == 'E' && mistake.is_of_the_plugin);
    ensure!(errors.len() == expected, "{} errors of the plugin", errors.len());
    for line in errors.iter().chain(&lines('W', true)) {
        ensure!(line.matches(C::NAME).count() == 1, "not one name in {line}");
        let is_expected = mistake.messages.iter().any(|message| is_in(message, line));
        ensure!(is_expected || document.explains(line), "the document does not explain {line}");
    }
    Ok(())
}

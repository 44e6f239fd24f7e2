//! Encryption and decryption of several files and folders into a folder.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::args::{Existing, Files, usage};
use crate::console::{Amount, Console, shown};
use crate::convert::{Converter, Outcome, Work};
use crate::failures::Failures;
use crate::input::is_stdio;
use crate::interrupt::{self, Interrupted};
use crate::output::remove_abandoned;
use crate::walk::{Found, walk};

pub(crate) fn convert(work: &Work, files: &Files) -> anyhow::Result<()> {
    interrupt::watch()?;
    let console = Console::new(files.is_quiet);
    let uuid = files.uuid.as_deref();
    let converter = Converter { work, uuid, existing: files.existing, console: &console };
    match files.inputs.as_slice() {
        [input] if !input.is_dir() => {
            let output = output_of_one(work, input, &files.output)?;
            let bytes = fs::metadata(input).map_or(0, |metadata| metadata.len());
            console.expect(Amount { files: 1, bytes });
            converter.convert(input, &output).map(drop)
        }
        inputs => Batch::new(converter, inputs, &files.output)?.run(),
    }
}

/// Returns the output of the only input: a file, or a file of the same name in a folder.
fn output_of_one(work: &Work, input: &Path, output: &Path) -> anyhow::Result<PathBuf> {
    let ends_with_slash = output.as_os_str().as_encoded_bytes().last().copied().map(char::from);
    let is_folder = output.is_dir() || ends_with_slash.is_some_and(std::path::is_separator);
    if !is_folder {
        return Ok(output.to_owned());
    }
    let name = input.file_name().filter(|_| !is_stdio(input));
    let name = name.ok_or_else(|| usage("the output of standard input must be a file"))?;
    prepare_folder(output)?;
    Ok(output.join(work.output_name(Path::new(name))))
}

/// Creates a folder and those above it, accessible only to their owner. Removes what a killed process left in it.
fn prepare_folder(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot create the folder {}", shown(path)))?;
    remove_abandoned(path);
    Ok(())
}

struct Batch<'a> {
    converter: Converter<'a>,
    inputs: &'a [PathBuf],
    output: &'a Path,
    /// Hashes of the outputs so far: paths of millions of files would take too much memory.
    outputs: HashSet<u64>,
    /// The folders of the outputs so far.
    folders: HashSet<PathBuf>,
    hasher: RandomState,
    done: u64,
    skipped: u64,
    failures: Failures,
}

impl<'a> Batch<'a> {
    fn new(converter: Converter<'a>, inputs: &'a [PathBuf], output: &'a Path) -> anyhow::Result<Self> {
        if converter.uuid.is_some() {
            return Err(usage("--uuid requires one file as IN"));
        }
        if inputs.iter().map(PathBuf::as_path).chain([output]).any(is_stdio) {
            return Err(usage("- requires one file as IN"));
        }
        if output.metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(usage(format!(
                "{} must be a folder, because there are several files",
                shown(output)
            )));
        }
        let resolved_output = resolved(output);
        for input in inputs.iter().filter(|input| input.is_dir()) {
            if resolved_output.starts_with(resolved(input)) {
                let message = format!("{} must not be in the input {}", shown(output), shown(input));
                return Err(usage(message));
            }
        }
        Ok(Self {
            converter,
            inputs,
            output,
            outputs: HashSet::new(),
            folders: HashSet::new(),
            hasher: RandomState::new(),
            done: 0,
            skipped: 0,
            failures: Failures::default(),
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let console = self.converter.console;
        prepare_folder(self.output)?;
        if console.shows_progress() {
            let mut total = Amount::default();
            for found in walk(self.inputs).flatten() {
                interrupt::check()?;
                total.files += 1;
                total.bytes += found.len;
            }
            console.expect(total);
        }
        let mut stopped = "";
        for found in walk(self.inputs) {
            match found.and_then(|found| self.convert_one(&found)) {
                Ok(Outcome::Done) => self.done += 1,
                Ok(Outcome::Skipped) => self.skipped += 1,
                Err(error) => {
                    self.failures.add(console, &error);
                    if error.is::<Interrupted>() || is_out_of_space(&error) {
                        stopped = match self.converter.existing {
                            Existing::Replace => "stopped; ",
                            Existing::Refuse | Existing::Skip => {
                                "stopped, repeat the command with --skip-existing to continue; "
                            }
                        };
                        break;
                    }
                }
            }
            console.finish_file();
        }
        let summary = format!("{stopped}{}", self.numbers());
        self.failures.into_result(summary.clone())?;
        console.print(&summary);
        Ok(())
    }

    fn convert_one(&mut self, found: &Found) -> anyhow::Result<Outcome> {
        interrupt::check()?;
        let output = self.output.join(self.converter.work.output_name(&found.relative));
        if !self.outputs.insert(self.hasher.hash_one(&output)) {
            return Err(anyhow!(
                "{}: another input has the same output {}",
                shown(&found.path),
                shown(&output)
            ));
        }
        if let Some(folder) = output.parent()
            && !self.folders.contains(folder)
        {
            prepare_folder(folder)?;
            self.folders.insert(folder.to_owned());
        }
        let outcome = self.converter.convert(&found.path, &output)?;
        if outcome == Outcome::Skipped {
            self.converter.console.skip(found.len);
        }
        Ok(outcome)
    }

    fn numbers(&self) -> String {
        let mut text = format!("files {}: {}", self.converter.work.done(), self.done);
        if self.skipped > 0 {
            text += &format!(", skipped because their output exists: {}", self.skipped);
        }
        if self.failures.count() > 0 {
            text += &format!(", failed: {}", self.failures.count());
        }
        text
    }
}

/// Returns a path without symbolic links, also of what does not exist yet.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(resolved) = fs::canonicalize(path) {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            resolved(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).join(name)
        }
        _ => path.to_owned(),
    }
}

/// Whether all further files would fail, too.
fn is_out_of_space(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};

    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
}

//! What `docs/troubleshooting.md` says about mistakes.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

/// The parts of the document that make up the table of mistakes.
const PARTS: [&str; 3] = ["At start", "Encryption, at start", "After a change of the configuration"];
/// The part about lines that are neither errors nor warnings.
const INFO: &str = "Info level";
/// Fixed letters that a message must have to explain a line. `read …` would explain every failed read.
const FIXED_LETTERS: usize = 9;

/// The messages of the document.
pub(super) struct Document {
    /// The messages about mistakes, and the level of each: `E` or `W`.
    pub(super) mistakes: BTreeMap<String, char>,
    /// All messages about errors and warnings.
    messages: Vec<String>,
}

impl Document {
    /// Reads the document.
    ///
    /// A mistake is a heading, or a row of a table, which has its messages in the first cell. In a heading, a quotation
    /// without a blank is not a message but the name of an option.
    /// The explanation of a warning begins with `A warning`.
    pub(super) fn read() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/troubleshooting.md");
        let text = fs::read_to_string(path).context(path)?;
        let mut document = Self { mistakes: BTreeMap::new(), messages: Vec::new() };
        for part in text.split("\n## ").skip(1) {
            let (title, content) = part.split_once('\n').context("an empty part")?;
            if title == INFO {
                continue;
            }
            let is_about_mistakes = PARTS.contains(&title);
            for section in content.split("\n### ") {
                for (messages, explanation) in entries(section) {
                    document.messages.extend(messages.iter().map(ToString::to_string));
                    if !is_about_mistakes {
                        continue;
                    }
                    let level = if explanation.starts_with("A warning") { 'W' } else { 'E' };
                    for message in messages {
                        let other = document.mistakes.insert(message.to_owned(), level);
                        ensure!(other.is_none_or(|other| other == level), "{message} has two levels");
                    }
                }
            }
        }
        Ok(document)
    }

    /// Whether the document has a message of this line.
    pub(super) fn explains(&self, line: &str) -> bool {
        let is_specific = |message: &&String| {
            message.chars().filter(|letter| letter.is_alphabetic()).count() >= FIXED_LETTERS
        };
        self.messages.iter().filter(is_specific).any(|message| is_in(message, line))
    }
}

/// Returns the messages of a section with their explanations.
fn entries(section: &str) -> Vec<(Vec<&str>, &str)> {
    let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
    let cells = |line| -> Option<(&str, &str)> { str::strip_prefix(line, "| ")?.split_once(" | ") };
    // The first two lines of a table are its head.
    let rows = body.lines().filter_map(cells).skip(2);
    let messages = quotations(heading).into_iter().filter(|text| text.contains(' ')).collect();
    let rows = rows.map(|(cell, explanation)| (quotations(cell), explanation));
    std::iter::once((messages, body.trim_start())).chain(rows).collect()
}

/// Returns what is between backticks.
fn quotations(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let opened = rest[start..].trim_start_matches('`');
        let fence = &rest[start..rest.len() - opened.len()];
        let Some((quotation, after)) = opened.split_once(fence) else { break };
        found.push(quotation.trim());
        rest = after;
    }
    found
}

/// Whether a line has a message, in which `…` stands for anything.
pub(super) fn is_in(message: &str, line: &str) -> bool {
    let mut rest = line;
    message.split('…').all(|part| {
        let found = rest.split_once(part);
        found.inspect(|(_, after)| rest = after).is_some()
    })
}

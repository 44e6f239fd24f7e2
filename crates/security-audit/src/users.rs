//! `RegisteredUsers`. Neither names nor passwords are shown, nor which user has a weak password: every user of the REST
//! API can read the audit.

use serde_json::{Map, Value};

use crate::finding::{Check, Finding};

/// Shortest password that is not weak, in characters.
const SHORTEST: usize = 12;

/// Passwords that attackers try first: of Orthanc's own files and images, of documentation, and the most common ones.
const WELL_KNOWN: [&str; 35] = [
    "123456",
    "12345678",
    "123456789",
    "1234567890",
    "1234",
    "12345",
    "abc123",
    "admin",
    "administrator",
    "alice",
    "alicepassword",
    "bob",
    "bobpassword",
    "demo",
    "dicom",
    "foobar",
    "guest",
    "hunter2",
    "letmein",
    "mypassword",
    "orthanc",
    "orthancteam",
    "osimis",
    "pacs",
    "passw0rd",
    "password",
    "password1",
    "passwort",
    "qwerty",
    "radiology",
    "root",
    "secret",
    "test",
    "user",
    "welcome",
];

/// How placeholders of documentation begin.
const PLACEHOLDERS: [&str; 3] = ["my-", "your-", "change"];

const ADVICE: &str = "replace them by random passwords of at least 12 characters, each for one user: openssl rand \
                      -base64 18";

/// The check of the users, if Orthanc asks for a password.
pub(crate) fn check(check: Check<'_>, users: &Map<String, Value>) -> Finding {
    let wrong = users.values().filter(|password| !password.is_string()).count();
    if wrong > 0 {
        let value = format!("{}, of which {wrong} without a string as password", count(users.len()));
        return check.warning(value, "each password must be a string, so this could not be checked");
    }
    let passwords = || users.iter().filter_map(|(user, password)| Some((user.as_str(), password.as_str()?)));
    let known = passwords().filter(|(user, password)| is_well_known(user, password)).count();
    let short = passwords().filter(|(_, password)| password.chars().count() < SHORTEST).count();
    let of_them =
        |weak: usize, what: &str| format!("{}, of which {weak} with a {what} password", count(users.len()));
    if known > 0 {
        return check.critical(of_them(known, "well-known"), ADVICE);
    }
    if short > 0 {
        return check.warning(of_them(short, "short"), ADVICE);
    }
    check.ok(count(users.len()))
}

fn count(users: usize) -> String {
    if users == 1 { "1 user".to_owned() } else { format!("{users} users") }
}

/// Whether a password is empty, the user's name, a placeholder, or in the list.
fn is_well_known(user: &str, password: &str) -> bool {
    let plain = |text: &str| text.trim().to_lowercase();
    let password = plain(password);
    let without_digits = password.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '!');
    let is_listed = |text: &str| WELL_KNOWN.contains(&text);
    password.is_empty()
        || PLACEHOLDERS.iter().any(|start| password.starts_with(start))
        || is_listed(&password)
        || (!without_digits.is_empty() && is_listed(without_digits))
        || password == plain(user)
        || without_digits == plain(user)
}

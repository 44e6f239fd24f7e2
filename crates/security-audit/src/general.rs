//! The machine, and options that belong to no other area.

use serde_json::Value;

use crate::facts::{Access, Facts, FileFact, LuaScript};
use crate::finding::{Area, Check, Finding, Severity};
use crate::options::{Options, WrongType, listed};

const AREA: Area = Area::General;

pub(crate) fn check(options: &Options<'_>, facts: &Facts) -> Vec<Finding> {
    vec![
        user(facts),
        configuration_files(facts),
        limit(options, "general-limit-find-results", "LimitFindResults"),
        limit(options, "general-limit-find-instances", "LimitFindInstances"),
        options.check_flag(AREA.check("general-https-verify-peers", "HttpsVerifyPeers"),
            true,
            (false, Severity::Critical),
            "set it to true, so that Orthanc verifies the certificates of the servers to which it sends images; add the \
             authority of your own servers to HttpsCACertificates",
        ),
        overwrite(options),
    ]
}

fn user(facts: &Facts) -> Finding {
    let check = AREA.check("general-user", "user that Orthanc runs as");
    match facts.is_root {
        Some(true) => check.critical("root", "run Orthanc as a user of its own, as the service of Debian does"),
        Some(false) => check.ok("not root"),
        None => check.warning(
            "unknown",
            "it cannot be determined on this platform: check that Orthanc runs as a user of its own, not as an \
             administrator or LocalSystem",
        ),
    }
}

fn configuration_files(facts: &Facts) -> Finding {
    let check = AREA
        .check("general-configuration-files", "configuration files, and the keys and scripts that they name");
    // Everyone may read a script, but nobody may change what it allows.
    let script = |script: &LuaScript| {
        let closed = |access| Access { others_read: false, ..access };
        FileFact { path: script.path.clone(), access: script.access.map(closed) }
    };
    let files = facts.configuration_files.iter().flatten().chain(&facts.secret_files).cloned();
    let files: Vec<_> = files.chain(facts.lua_scripts.iter().map(script)).collect();
    let finding =
        shared_files(check, &files, "chown root:orthanc FILE && chmod 640 FILE && chmod go-w FOLDER");
    if facts.configuration_files.is_none() && finding.severity != Severity::Critical {
        let advice = "their paths could not be determined: check that only the user that Orthanc runs as can read them";
        return check.warning("unknown", advice);
    }
    finding
}

/// The finding about files that only Orthanc should read.
pub(crate) fn shared_files(check: Check<'_>, files: &[FileFact], commands: &str) -> Finding {
    let paths = |is_meant: &dyn Fn(&FileFact) -> bool| {
        let paths: Vec<_> =
            files.iter().filter(|file| is_meant(file)).map(|file| file.path.as_str()).collect();
        (!paths.is_empty()).then(|| listed(paths))
    };
    let is = |access: fn(&Access) -> bool| move |file: &FileFact| file.access.as_ref().is_some_and(access);
    if let Some(paths) = paths(&is(|access| access.others_write)) {
        return check.critical(format!("every user can change {paths}"), commands);
    }
    if let Some(paths) = paths(&is(|access| access.others_read)) {
        return check.warning(format!("every user can read {paths}"), commands);
    }
    if let Some(paths) = paths(&|file| file.access.is_none()) {
        let advice =
            "the permissions could not be read: check that only the user that Orthanc runs as has access";
        return check.warning(format!("unknown: {paths}"), advice);
    }
    check.ok(format!("closed to other users: {}", listed(files.iter().map(|file| file.path.as_str()))))
}

fn limit(options: &Options<'_>, id: &'static str, option: &'static str) -> Finding {
    let check = AREA.check(id, option);
    match options.number(option, 0) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if setting.value == 0 => check.warning(
            format!("{}: no limit", setting.shown),
            "set it to 100, so that a few searches of a client cannot make Orthanc unresponsive",
        ),
        Ok(setting) => check.ok(setting.shown),
    }
}

/// A boolean up to Orthanc 1.12.11, and one of these strings since.
fn overwrite(options: &Options<'_>) -> Finding {
    let option = "OverwriteInstances";
    let check = AREA.check("general-overwrite-instances", option);
    let advice = "set it to false, unless modalities must be able to send corrected images: anyone who can store \
                  instances can replace stored ones";
    match options.get(option) {
        None => check.ok("Never (default)"),
        Some(Value::Bool(false)) => check.ok("false"),
        Some(Value::Bool(true)) => check.warning("true", advice),
        Some(Value::String(text)) if text == "Never" => check.ok("Never"),
        Some(Value::String(text)) if text == "Always" || text == "IfChanged" => {
            check.warning(text.as_str(), advice)
        }
        Some(other) => {
            WrongType::new(other, "true, false, \"Never\", \"Always\" or \"IfChanged\"").finding(check)
        }
    }
}

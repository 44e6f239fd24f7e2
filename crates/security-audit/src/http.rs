//! Orthanc's HTTP server.

use crate::facts::{Facts, Version};
use crate::finding::{Area, Check, Finding, Severity};
use crate::options::{Options, listed};
use crate::users;

const AREA: Area = Area::Http;
/// The first version that is known to have `HttpBindAddresses`. Older ones ignore it.
const WITH_BIND_ADDRESSES: Version = Version(1, 13, 0);
/// The first version that always has `RestApiWriteToFileSystemEnabled`.
const WITH_WRITE_OPTION: Version = Version(1, 12, 0);
/// `SslMinimumProtocolVersion` for TLS 1.2, the default.
const TLS_1_2: u64 = 4;
/// Parts of the names of ciphers that are broken, or do not encrypt or authenticate.
const BROKEN_CIPHERS: [&str; 9] = ["NULL", "RC4", "DES", "MD5", "EXP", "ADH", "AECDH", "ANON", "LOW"];
/// The name of the authorization plugin.
const AUTHORIZATION: &str = "authorization";

/// Who can reach the server, and how it knows them.
#[derive(Debug, Clone, Copy)]
struct Reach {
    is_remote: bool,
    has_tls: bool,
    asks_for_password: bool,
    has_authorization: bool,
}

impl Reach {
    fn of(options: &Options<'_>, facts: &Facts) -> Self {
        let is_allowed = options.flag_or("RemoteAccessAllowed", false);
        let has_authorization = has_authorization(options, facts);
        Self {
            is_remote: is_allowed && !listens_locally(options, facts),
            has_tls: options.flag_or("SslEnabled", false),
            // Orthanc's default depends on the other option.
            asks_for_password: options.flag_or("AuthenticationEnabled", is_allowed),
            has_authorization,
        }
    }
}

pub(crate) fn check(options: &Options<'_>, facts: &Facts) -> Vec<Finding> {
    let reach = Reach::of(options, facts);
    let write = || write_to_file_system(options, facts);
    vec![
        remote_access(options, facts, reach),
        authentication(options, reach),
        registered_users(options, reach),
        tls(options, reach),
        tls_version(options, reach),
        tls_ciphers(options, reach),
        client_certificates(options, reach),
        options.check_flag(AREA.check("http-webdav", "WebDavEnabled"),
            true,
            (true, Severity::Warning),
            "set it to false, unless the archive is used as a network share: WebDAV is another way to read and to upload \
             images",
        ),
        options.check_flag(AREA.check("http-execute-lua", "ExecuteLuaEnabled"),
            false,
            (true, Severity::Critical),
            "set it to false: anyone who can use the REST API can run any program on this machine as Orthanc's user",
        ),
        write(),
        filter(options, facts),
    ]
}

/// Whether the server only listens on the loopback.
fn listens_locally(options: &Options<'_>, facts: &Facts) -> bool {
    let is_loopback =
        |address: &&str| address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    facts.version >= WITH_BIND_ADDRESSES
        && options
            .strings("HttpBindAddresses")
            .ok()
            .flatten()
            .is_some_and(|addresses| !addresses.is_empty() && addresses.iter().all(is_loopback))
}

/// Whether the authorization plugin decides about requests.
fn has_authorization(options: &Options<'_>, facts: &Facts) -> bool {
    let is_loaded = facts.plugins.iter().any(|plugin| plugin == AUTHORIZATION);
    let section = options.object("Authorization").ok().flatten();
    let is_off =
        |section: &serde_json::Map<_, serde_json::Value>| section.get("Enable") == Some(&false.into());
    is_loaded && section.is_some_and(|section| !section.is_empty() && !is_off(section))
}

fn remote_access(options: &Options<'_>, facts: &Facts, reach: Reach) -> Finding {
    let check = AREA.check("http-remote-access", "RemoteAccessAllowed");
    let setting = match options.flag("RemoteAccessAllowed", false) {
        Ok(setting) => setting,
        Err(wrong) => return wrong.finding(check),
    };
    let is_known = reach.asks_for_password || reach.has_authorization;
    if !reach.is_remote {
        let how =
            if setting.value { ", only on the addresses of this machine (HttpBindAddresses)" } else { "" };
        return check.ok(format!("{}{how}", setting.shown));
    }
    if is_known && reach.has_tls {
        return check.finding(
            Severity::Ok,
            setting.shown,
            "limit the machines that reach the port with a firewall; on the Internet, use a reverse proxy",
        );
    }
    let is_ignored = facts.version < WITH_BIND_ADDRESSES && options.get("HttpBindAddresses").is_some();
    let ignored = if is_ignored { "; this version of Orthanc may ignore HttpBindAddresses" } else { "" };
    let advice = "set it to false and use a reverse proxy on this machine, or require TLS and passwords";
    check.warning(setting.shown, format!("{advice}{ignored}"))
}

fn authentication(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-authentication", "AuthenticationEnabled");
    let is_allowed = options.flag_or("RemoteAccessAllowed", false);
    let setting = match options.flag("AuthenticationEnabled", is_allowed) {
        Ok(setting) => setting,
        Err(wrong) => return wrong.finding(check),
    };
    let advice = "set it to true, and name the users in RegisteredUsers";
    match reach {
        _ if setting.value => check.ok(setting.shown),
        Reach { has_authorization: true, .. } => {
            check.ok(format!("{}; the authorization plugin decides", setting.shown))
        }
        Reach { is_remote: true, .. } => check.critical(
            setting.shown,
            format!("everyone who reaches the port can read and delete images; {advice}"),
        ),
        _ => check.warning(
            setting.shown,
            format!("every user and program on this machine can read and delete images; {advice}"),
        ),
    }
}

fn registered_users(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-users", "RegisteredUsers");
    let registered = match options.object("RegisteredUsers") {
        Ok(registered) => registered.filter(|registered| !registered.is_empty()),
        Err(wrong) => return wrong.finding(check),
    };
    match registered {
        _ if !reach.asks_for_password => check.ok("without effect, since AuthenticationEnabled is false"),
        Some(registered) => users::check(check, registered),
        None if reach.has_authorization => check.ok("no users; the authorization plugin decides"),
        // Orthanc makes one, whose password is in its documentation.
        None if options.flag_or("RemoteAccessAllowed", false) => check.critical(
            "no users: Orthanc accepts the user orthanc with the password orthanc",
            "name the users, with random passwords of at least 12 characters",
        ),
        None => check.warning("no users: nobody can log in", "name the users, with random passwords"),
    }
}

fn tls(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-tls", "SslEnabled");
    match options.flag("SslEnabled", false) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if setting.value => check.ok(setting.shown),
        Ok(setting) if reach.is_remote => check.critical(
            setting.shown,
            "images and passwords cross the network in clear: set it to true, or put a reverse proxy with TLS on this \
             machine and set RemoteAccessAllowed to false",
        ),
        Ok(setting) => check.finding(
            Severity::Ok,
            setting.shown,
            "only this machine reaches Orthanc; a reverse proxy on it must use TLS",
        ),
    }
}

fn tls_version(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-tls-version", "SslMinimumProtocolVersion");
    match options.number("SslMinimumProtocolVersion", TLS_1_2) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if !reach.has_tls => check.ok(format!("{}, without effect", setting.shown)),
        Ok(setting) if setting.value < TLS_1_2 => check.warning(
            setting.shown,
            "set it to 4, so that only TLS 1.2 and newer are accepted: older versions are broken",
        ),
        Ok(setting) => check.ok(setting.shown),
    }
}

fn tls_ciphers(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-tls-ciphers", "SslCiphersAccepted");
    let ciphers = match options.strings("SslCiphersAccepted") {
        Ok(ciphers) => ciphers,
        Err(wrong) => return wrong.finding(check),
    };
    let Some(ciphers) = ciphers else { return check.ok("FIPS 140-2 ciphers (default)") };
    // The names in a list of OpenSSL, where "!" excludes a cipher.
    let is_broken = |name: &str| {
        let name = name.to_uppercase();
        !name.starts_with(['!', '-']) && BROKEN_CIPHERS.iter().any(|part| name.contains(part))
    };
    let broken: Vec<_> =
        ciphers.iter().flat_map(|text| text.split(':')).filter(|name| is_broken(name)).collect();
    if reach.has_tls && !broken.is_empty() {
        return check
            .warning(listed(broken), "remove these ciphers, or the whole option: Orthanc's default is good");
    }
    check.ok(listed(ciphers))
}

fn client_certificates(options: &Options<'_>, reach: Reach) -> Finding {
    let check = AREA.check("http-client-certificates", "SslVerifyPeers");
    match options.flag("SslVerifyPeers", false) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if setting.value && reach.has_tls => check.ok(setting.shown),
        Ok(setting) if reach.is_remote => check.warning(
            setting.shown,
            "demand certificates of clients: SslEnabled and SslVerifyPeers true, and the authority in \
             SslTrustedClientCertificates; or let a reverse proxy do it",
        ),
        Ok(setting) => check.finding(
            Severity::Ok,
            setting.shown,
            "only this machine reaches Orthanc; a reverse proxy on it should demand certificates of clients",
        ),
    }
}

fn write_to_file_system(options: &Options<'_>, facts: &Facts) -> Finding {
    let option = "RestApiWriteToFileSystemEnabled";
    let check = AREA.check("http-write-to-file-system", option);
    if facts.version < WITH_WRITE_OPTION && options.get(option).is_none() {
        return check.warning(
            "not set",
            "set it to false, and upgrade Orthanc: versions before 1.12.0 let users of the REST API write files, unless \
             your distribution has corrected that",
        );
    }
    let advice = "set it to false: anyone who can use the REST API can overwrite files of Orthanc's user";
    options.check_flag(check, false, (true, Severity::Critical), advice)
}

fn filter(options: &Options<'_>, facts: &Facts) -> Finding {
    let check = AREA.check("http-filter", "LuaScripts: IncomingHttpRequestFilter");
    if let Err(wrong) = options.strings("LuaScripts") {
        return wrong.finding(Check { option: "LuaScripts", ..check });
    }
    let with = |found: Option<bool>| {
        facts
            .lua_scripts
            .iter()
            .filter(move |script| script.defines_filter == found)
            .map(|script| script.path.as_str())
    };
    if let Some(path) = with(Some(true)).next() {
        return check.ok(format!("a filter in {}", listed([path])));
    }
    if has_authorization(options, facts) {
        return check.ok("the authorization plugin decides");
    }
    let unreadable: Vec<_> = with(None).collect();
    if !unreadable.is_empty() {
        let advice = "check that these files exist and that Orthanc can read them";
        return check.warning(format!("unreadable: {}", listed(unreadable)), advice);
    }
    check.warning(
        "none",
        "say what each user may do, with a filter in Lua as in docs/security.md or with the authorization plugin; without one, \
         each user may delete everything. Filters of other plugins, such as scripts in Python, are not recognised here",
    )
}

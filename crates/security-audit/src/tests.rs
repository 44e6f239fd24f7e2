use serde_json::{Value, json};

use super::*;
use Severity::{Critical, Ok as Fine, Warning};

/// Every id, in order: callers rely on them.
const IDS: [&str; 42] = [
    "general-user",
    "general-configuration-files",
    "general-limit-find-results",
    "general-limit-find-instances",
    "general-https-verify-peers",
    "general-overwrite-instances",
    "http-remote-access",
    "http-authentication",
    "http-users",
    "http-tls",
    "http-tls-version",
    "http-tls-ciphers",
    "http-client-certificates",
    "http-webdav",
    "http-execute-lua",
    "http-write-to-file-system",
    "http-filter",
    "dicom-server",
    "dicom-always-allow-echo",
    "dicom-always-allow-store",
    "dicom-always-allow-find",
    "dicom-always-allow-find-worklist",
    "dicom-always-allow-get",
    "dicom-always-allow-move",
    "dicom-check-modality-host",
    "dicom-check-called-aet",
    "dicom-modalities",
    "dicom-tls",
    "dicom-tls-version",
    "dicom-tls-client-certificates",
    "storage-endpoint",
    "storage-encryption",
    "storage-encryption-format",
    "storage-key-files",
    "storage-key-disk",
    "storage-state-directory",
    "storage-maximum-size",
    "storage-anonymous-list",
    "storage-anonymous-read",
    "storage-public-access",
    "storage-versions",
    "storage-unfinished-uploads",
];

fn with_facts(configuration: &Value, facts: &Facts) -> Vec<Finding> {
    audit(configuration.as_object().unwrap(), facts)
}

/// The findings whose severity is not `ok` with nothing else wrong than in `configuration`.
fn problems(configuration: &Value, facts: &Facts) -> Vec<(&'static str, Severity)> {
    let findings = with_facts(configuration, facts);
    let problems = findings.iter().filter(|finding| finding.severity != Fine);
    problems.map(|finding| (finding.id, finding.severity)).collect()
}

fn found(configuration: &Value, facts: &Facts, id: &str) -> Finding {
    with_facts(configuration, facts).into_iter().find(|finding| finding.id == id).unwrap()
}

const CLOSED: Access = Access { others_read: false, others_write: false, device: 1 };

fn file(path: &str, device: u64) -> FileFact {
    FileFact { path: path.to_owned(), access: Some(Access { device, ..CLOSED }) }
}

/// Format A2, which alone is read.
fn strict() -> Encryption {
    Encryption { format: "A2".to_owned(), reads_a1: false, reads_unencrypted: false, reads_key_vault: false }
}

/// A machine and a bucket without a fault.
fn good_facts() -> Facts {
    let refused = || Answer::Known(Anonymous::Refused("HTTP 403 AccessDenied".to_owned()));
    Facts {
        version: Version(1, 13, 0),
        is_root: Some(false),
        configuration_files: Some(vec![file("/etc/orthanc/orthanc.json", 1)]),
        lua_scripts: vec![LuaScript {
            path: "filter.lua".to_owned(),
            access: Some(CLOSED),
            defines_filter: Some(true),
        }],
        storage: StorageFacts {
            section: "AwsS3Storage".to_owned(),
            endpoint: "https://s3.eu-central-1.amazonaws.com/".to_owned(),
            encryption: Some(strict()),
            key_files: vec![file("/run/keys/1.key", 2)],
            index: Some(file("/var/lib/orthanc", 1)),
            state: Some(file("/var/lib/orthanc/state", 1)),
            bucket: BucketFacts {
                anonymous_list: refused(),
                anonymous_read: refused(),
                public_access: Answer::Known(PublicAccess {
                    is_blocked: true,
                    shown: "blocked".to_owned(),
                    advice: "",
                }),
                versions: Answer::Known(Versions::Off),
                unfinished_uploads: Answer::Known(Some(7)),
            },
            ..StorageFacts::default()
        },
        ..Facts::default()
    }
}

/// Options without a fault.
fn good() -> Value {
    json!({
        "LimitFindResults": 100, "LimitFindInstances": 100,
        "AuthenticationEnabled": true, "RegisteredUsers": {"alice": "Xk2vP8sQ7rT1uW4y"}, "WebDavEnabled": false,
        "LuaScripts": ["filter.lua"],
        "DicomAlwaysAllowEcho": false, "DicomAlwaysAllowStore": false, "DicomCheckModalityHost": true,
        "DicomCheckCalledAet": true, "DicomTlsEnabled": true,
        "DicomModalities": {"ct": {
            "AET": "CT", "Host": "192.168.0.10", "Port": 104,
            "AllowEcho": true, "AllowStore": true, "AllowFind": false, "AllowFindWorklist": false, "AllowGet": false,
            "AllowMove": false, "AllowNAction": false, "AllowEventReport": false,
        }},
    })
}

fn with(changes: &Value) -> Value {
    let mut configuration = good();
    for (option, value) in changes.as_object().unwrap() {
        configuration[option] = value.clone();
    }
    configuration
}

#[test]
fn ids_are_stable() {
    let ids: Vec<_> = with_facts(&json!({}), &Facts::default()).iter().map(|finding| finding.id).collect();
    assert_eq!(ids, IDS);
}

#[test]
fn good_configuration_has_no_problems() {
    assert_eq!(problems(&good(), &good_facts()), []);
}

#[test]
fn defaults_of_orthanc_are_known() {
    let expected = [
        ("general-limit-find-results", Warning),
        ("general-limit-find-instances", Warning),
        ("http-authentication", Warning),
        ("http-webdav", Warning),
        ("dicom-always-allow-echo", Warning),
        ("dicom-always-allow-store", Warning),
        ("dicom-check-modality-host", Warning),
        ("dicom-check-called-aet", Warning),
        ("dicom-tls", Warning),
    ];
    assert_eq!(problems(&json!({}), &good_facts()), expected);
    // Before 1.12.0, there was no option against writes, which cannot be told from a corrected Debian.
    let mut facts = good_facts();
    facts.version = Version(1, 10, 1);
    let unsafe_option = found(&json!({}), &facts, "http-write-to-file-system");
    assert_eq!((unsafe_option.severity, unsafe_option.value.as_str()), (Warning, "not set"));
    let option = json!({"RestApiWriteToFileSystemEnabled": false});
    assert_eq!(found(&option, &facts, "http-write-to-file-system").severity, Fine);
}

#[test]
fn each_option_is_judged() {
    let named = |name: &str| json!({name: {"AET": "A", "Host": "h", "Port": 1}});
    for (changes, expected) in [
        (json!({"LimitFindResults": 0}), &[("general-limit-find-results", Warning)][..]),
        (json!({"HttpsVerifyPeers": false}), &[("general-https-verify-peers", Critical)]),
        (json!({"OverwriteInstances": true}), &[("general-overwrite-instances", Warning)]),
        (json!({"OverwriteInstances": "Always"}), &[("general-overwrite-instances", Warning)]),
        (json!({"OverwriteInstances": "IfChanged"}), &[("general-overwrite-instances", Warning)]),
        (json!({"OverwriteInstances": "Never"}), &[]),
        (json!({"AuthenticationEnabled": false}), &[("http-authentication", Warning)]),
        (json!({"ExecuteLuaEnabled": true}), &[("http-execute-lua", Critical)]),
        (json!({"RestApiWriteToFileSystemEnabled": true}), &[("http-write-to-file-system", Critical)]),
        (json!({"WebDavEnabled": true}), &[("http-webdav", Warning)]),
        (
            json!({"RemoteAccessAllowed": true}),
            &[("http-remote-access", Warning), ("http-tls", Critical), ("http-client-certificates", Warning)],
        ),
        (
            json!({"RemoteAccessAllowed": true, "AuthenticationEnabled": false, "SslEnabled": true}),
            &[
                ("http-remote-access", Warning),
                ("http-authentication", Critical),
                ("http-client-certificates", Warning),
            ],
        ),
        (json!({"RemoteAccessAllowed": true, "SslEnabled": true, "SslVerifyPeers": true}), &[]),
        (json!({"RemoteAccessAllowed": true, "HttpBindAddresses": ["127.0.0.1", "::1"]}), &[]),
        (
            json!({"RemoteAccessAllowed": true, "HttpBindAddresses": ["127.0.0.1", "10.0.0.1"], "SslEnabled": true}),
            &[("http-client-certificates", Warning)],
        ),
        (json!({"SslEnabled": true, "SslMinimumProtocolVersion": 3}), &[("http-tls-version", Warning)]),
        (json!({"SslMinimumProtocolVersion": 0}), &[]),
        (json!({"SslEnabled": true, "SslCiphersAccepted": ["RC4-SHA"]}), &[("http-tls-ciphers", Warning)]),
        (json!({"SslEnabled": true, "SslCiphersAccepted": ["ECDHE+AESGCM:!aNULL:!MD5"]}), &[]),
        (json!({"DicomAlwaysAllowEcho": true}), &[("dicom-always-allow-echo", Warning)]),
        (json!({"DicomAlwaysAllowStore": true}), &[("dicom-always-allow-store", Warning)]),
        (json!({"DicomAlwaysAllowFind": true}), &[("dicom-always-allow-find", Critical)]),
        (json!({"DicomAlwaysAllowFindWorklist": true}), &[("dicom-always-allow-find-worklist", Critical)]),
        (json!({"DicomAlwaysAllowGet": true}), &[("dicom-always-allow-get", Critical)]),
        (json!({"DicomAlwaysAllowMove": true}), &[("dicom-always-allow-move", Critical)]),
        (json!({"DicomCheckModalityHost": false}), &[("dicom-check-modality-host", Warning)]),
        (json!({"DicomCheckCalledAet": false}), &[("dicom-check-called-aet", Warning)]),
        (json!({"DicomModalities": {"ct": ["CT", "192.168.0.10", 104]}}), &[("dicom-modalities", Warning)]),
        (json!({"DicomModalities": named("mr")}), &[("dicom-modalities", Warning)]),
        (json!({"DicomModalities": {}}), &[]),
        (json!({"DicomTlsEnabled": false}), &[("dicom-tls", Warning)]),
        (json!({"DicomTlsRemoteCertificateRequired": false}), &[("dicom-tls-client-certificates", Warning)]),
        (json!({"DicomTlsMinimumProtocolVersion": 2}), &[("dicom-tls-version", Warning)]),
        (json!({"DicomTlsMinimumProtocolVersion": 5}), &[]),
        (json!({"DicomServerEnabled": false, "DicomAlwaysAllowFind": true, "DicomTlsEnabled": false}), &[]),
        (json!({"MaximumStorageSize": 1000}), &[("storage-maximum-size", Warning)]),
    ] {
        assert_eq!(problems(&with(&changes), &good_facts()), expected, "{changes}");
    }
}

#[test]
fn older_versions_ignore_bind_addresses() {
    let configuration = with(&json!({"RemoteAccessAllowed": true, "HttpBindAddresses": ["127.0.0.1"]}));
    let facts = Facts { version: Version(1, 12, 7), ..good_facts() };
    let finding = found(&configuration, &facts, "http-remote-access");
    assert_eq!(finding.severity, Warning);
    assert!(finding.advice.contains("may ignore HttpBindAddresses"), "{}", finding.advice);
    assert_eq!(found(&configuration, &facts, "http-tls").severity, Critical);
}

#[test]
fn weak_passwords_are_found_and_not_shown() {
    let judged =
        |users: &Value| found(&with(&json!({"RegisteredUsers": users})), &good_facts(), "http-users");
    for (user, password, expected) in [
        ("orthanc", "orthanc", Critical),
        ("a", "Admin", Critical),
        ("radiology-west", "Radiology-West", Critical),
        ("radiology-west", "radiology-west2026!", Critical),
        ("a", "my-password", Critical),
        ("a", "your-long-password-here", Critical),
        ("a", "Change-This-Please", Critical),
        ("a", "Password2026!", Critical),
        ("a", "", Critical),
        ("a", "  ", Critical),
        ("a", "Xk2vP8sQ7rT", Warning),
        ("a", "Xk2vP8sQ7rT1", Fine),
        ("a", "älteres Röntgengerät", Fine),
    ] {
        let finding = judged(&json!({user: password, "other": "Zr5tU8pL2mN9bV3c"}));
        assert_eq!(finding.severity, expected, "{password:?}");
        let text = format!("{finding:?}");
        assert!(password.trim().len() < 3 || !text.contains(password), "{text}");
        assert!(!text.contains("Zr5t") && !text.contains("other"), "{text}");
    }
    assert_eq!(judged(&json!({"a": 7})).severity, Warning);
    let none = with(&json!({"RegisteredUsers": {}}));
    assert_eq!(found(&none, &good_facts(), "http-users").severity, Warning);
    let remote = with(&json!({"RegisteredUsers": {}, "RemoteAccessAllowed": true}));
    assert_eq!(found(&remote, &good_facts(), "http-users").severity, Critical);
}

#[test]
fn authorization_plugin_replaces_passwords_and_filter() {
    let configuration = with(&json!({"AuthenticationEnabled": false, "Authorization": {"Enable": true}}));
    let mut facts = good_facts();
    facts.lua_scripts.clear();
    assert_eq!(found(&configuration, &facts, "http-filter").severity, Warning);
    assert_eq!(found(&configuration, &facts, "http-authentication").severity, Warning);
    facts.plugins.push("authorization".to_owned());
    assert_eq!(problems(&configuration, &facts), []);
    let off = with(&json!({"Authorization": {"Enable": false}}));
    assert_eq!(problems(&off, &facts), [("http-filter", Warning)]);
}

#[test]
fn wrong_types_are_warnings_without_values() {
    for option in good().as_object().unwrap().keys() {
        for wrong in [json!("hunter2-secret"), json!(null), json!([{}]), json!(-1), json!([[["x"]]])] {
            let configuration = with(&json!({option: wrong}));
            let findings = with_facts(&configuration, &good_facts());
            let is_about = |finding: &&Finding| finding.option.starts_with(option.as_str());
            let about: Vec<_> = findings.iter().filter(is_about).collect();
            assert!(about.iter().any(|finding| finding.severity == Warning), "{option} {wrong}: {about:?}");
            let text = format!("{findings:?}");
            assert!(!text.contains("hunter2-secret"), "{option}: {text}");
        }
    }
    for modality in [json!(7), json!("ct"), json!({"AllowEcho": "no"})] {
        let finding =
            found(&with(&json!({"DicomModalities": {"x": modality}})), &good_facts(), "dicom-modalities");
        assert_eq!((finding.severity, finding.value.as_str()), (Warning, "not valid: \"x\""));
    }
}

#[test]
fn storage_commitment_stands_for_two_permissions() {
    let mut configuration = good();
    let modality = configuration["DicomModalities"]["ct"].as_object_mut().unwrap();
    modality.remove("AllowNAction");
    modality.remove("AllowEventReport");
    assert_eq!(problems(&configuration, &good_facts()), [("dicom-modalities", Warning)]);
    configuration["DicomModalities"]["ct"]["AllowStorageCommitment"] = json!(false);
    assert_eq!(problems(&configuration, &good_facts()), []);
}

#[test]
fn passwords_of_the_documentation_are_well_known() {
    let document = include_str!("../../../docs/security.md");
    let blocks = document.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks = blocks.map(|block| serde_json::from_str::<Value>(block).unwrap());
    let users: Vec<_> = blocks.filter_map(|block| block["RegisteredUsers"].as_object().cloned()).collect();
    let passwords: Vec<_> = users.iter().flat_map(Map::values).collect();
    assert_eq!(passwords.len(), 2);
    for password in passwords {
        let configuration = with(&json!({"RegisteredUsers": {"someone": password}}));
        assert_eq!(found(&configuration, &good_facts(), "http-users").severity, Critical, "{password}");
    }
}

#[test]
fn many_modalities_and_odd_names_stay_short() {
    let mut modalities = Map::new();
    for number in 0..10_000 {
        modalities.insert(format!("\"{number}\n</b>{}", "ü".repeat(500)), json!(["A", "h", 1]));
    }
    let finding = found(&with(&json!({"DicomModalities": modalities})), &good_facts(), "dicom-modalities");
    assert!(
        finding.value.contains("10000 of 10000") && finding.value.contains("and 9990 more"),
        "{finding:?}"
    );
    assert!(finding.value.len() < 3000 && !finding.value.contains('\n'), "{}", finding.value.len());
}

#[test]
fn modalities_in_the_database_are_read_there() {
    let configuration = with(&json!({"DicomModalitiesInDatabase": true}));
    let mut facts = good_facts();
    assert_eq!(found(&configuration, &facts, "dicom-modalities").severity, Warning);
    facts.modalities_in_database = Some(json!({"mr": {"AET": "MR", "AllowEcho": true}}));
    assert!(found(&configuration, &facts, "dicom-modalities").value.contains("\"mr\""));
    facts.modalities_in_database = Some(good()["DicomModalities"].clone());
    assert_eq!(problems(&configuration, &facts), []);
    // As Orthanc shows a modality of which nothing was written.
    let mut everything = good()["DicomModalities"].clone();
    for (name, value) in everything["ct"].as_object_mut().unwrap() {
        if name.starts_with("Allow") {
            *value = json!(true);
        }
    }
    facts.modalities_in_database = Some(everything);
    let finding = found(&configuration, &facts, "dicom-modalities");
    assert_eq!((finding.severity, finding.value.as_str()), (Warning, "1 of 1 may do everything: \"ct\""));
}

#[test]
fn facts_are_judged() {
    let shared = |others_read, others_write| {
        let access = Access { others_read, others_write, device: 2 };
        FileFact { path: "/shared".to_owned(), access: Some(access) }
    };
    let unknown = || FileFact { path: "/unknown".to_owned(), access: None };
    type Change<'a> = &'a dyn Fn(&mut Facts);
    let cases: [(Change<'_>, &[(&str, Severity)]); 18] = [
        (&|facts| facts.is_root = Some(true), &[("general-user", Critical)]),
        (&|facts| facts.is_root = None, &[("general-user", Warning)]),
        (&|facts| facts.configuration_files = None, &[("general-configuration-files", Warning)]),
        (
            &|facts| facts.configuration_files = Some(vec![shared(true, false)]),
            &[("general-configuration-files", Warning)],
        ),
        (
            &|facts| facts.configuration_files = Some(vec![shared(true, false), shared(true, true)]),
            &[("general-configuration-files", Critical)],
        ),
        (&|facts| facts.storage.is_endpoint_exposed = true, &[("storage-endpoint", Critical)]),
        (&|facts| facts.storage.encryption = None, &[("storage-encryption", Warning)]),
        (
            &|facts| facts.storage.encryption = Some(Encryption { format: "A1".to_owned(), ..strict() }),
            &[("storage-encryption-format", Warning)],
        ),
        (
            &|facts| facts.storage.encryption = Some(Encryption { reads_a1: true, ..strict() }),
            &[("storage-encryption-format", Warning)],
        ),
        (
            &|facts| facts.storage.encryption = Some(Encryption { reads_unencrypted: true, ..strict() }),
            &[("storage-encryption-format", Warning)],
        ),
        (
            &|facts| facts.storage.encryption = Some(Encryption { reads_key_vault: true, ..strict() }),
            &[("storage-encryption-format", Warning)],
        ),
        (
            &|facts| facts.secret_files = vec![shared(true, false)],
            &[("general-configuration-files", Warning)],
        ),
        (
            &|facts| facts.lua_scripts[0].access = shared(true, true).access,
            &[("general-configuration-files", Critical)],
        ),
        (&|facts| facts.lua_scripts[0].access = shared(true, false).access, &[]),
        (&|facts| facts.storage.key_files = vec![shared(true, false)], &[("storage-key-files", Warning)]),
        (
            &|facts| facts.storage.key_files = vec![unknown()],
            &[("storage-key-files", Warning), ("storage-key-disk", Warning)],
        ),
        (&|facts| facts.storage.key_files[0] = file("/var/1.key", 1), &[("storage-key-disk", Warning)]),
        (&|facts| facts.storage.state = Some(shared(true, true)), &[("storage-state-directory", Critical)]),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut facts = good_facts();
        change(&mut facts);
        assert_eq!(problems(&good(), &facts), expected, "case {number}");
    }
    let mut facts = good_facts();
    facts.storage.index = None;
    let in_server = with(&json!({"PostgreSQL": {"EnableIndex": true}}));
    let unknown_disk = [("storage-key-disk", Warning)];
    assert_eq!(problems(&in_server, &facts), unknown_disk, "the section of a plugin that is not loaded");
    facts.plugins.push("postgresql-index".to_owned());
    assert_eq!(problems(&in_server, &facts), []);
    assert_eq!(problems(&good(), &facts), unknown_disk);
}

#[test]
fn unanswered_questions_are_never_ok() {
    let mut facts = good_facts();
    facts.storage.bucket = BucketFacts::default();
    let unanswered: Vec<_> = IDS[37..].iter().map(|id| (*id, Warning)).collect();
    assert_eq!(problems(&good(), &facts), unanswered);
    facts.storage.bucket = BucketFacts {
        anonymous_list: Answer::Known(Anonymous::Allowed),
        anonymous_read: Answer::Known(Anonymous::Allowed),
        public_access: Answer::Denied("s3:GetBucketPublicAccessBlock"),
        versions: Answer::Known(Versions::Kept { shown: "on".to_owned(), days: None, advice: "limit it" }),
        unfinished_uploads: Answer::Known(None),
    };
    let severities = [Critical, Critical, Warning, Warning, Warning];
    let expected: Vec<_> = IDS[37..].iter().copied().zip(severities).collect();
    assert_eq!(problems(&good(), &facts), expected);
    let denied = found(&good(), &facts, "storage-public-access");
    assert!(denied.advice.contains("s3:GetBucketPublicAccessBlock"), "{}", denied.advice);

    facts.storage.bucket = good_facts().storage.bucket;
    facts.storage.bucket.public_access = Answer::NotSupported;
    facts.storage.bucket.unfinished_uploads = Answer::NotSupported;
    facts.storage.bucket.versions =
        Answer::Known(Versions::Kept { shown: "soft delete".to_owned(), days: Some(7), advice: "" });
    assert_eq!(problems(&good(), &facts), []);
}

#[test]
fn fields_have_documented_names() {
    let finding = found(&good(), &good_facts(), "http-remote-access");
    let expected = json!({
        "Id": "http-remote-access", "Severity": "ok", "Area": "http", "Option": "RemoteAccessAllowed",
        "Value": "false (default)", "Advice": "",
    });
    assert_eq!(serde_json::to_value(finding).unwrap(), expected);
}

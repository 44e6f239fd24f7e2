//! Every value that the plugin refuses, with its whole message, and the spellings that it accepts.

use anyhow::Result;
use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::fixture::{Trials, configuration, load, with};
use crate::{Cloud, OptionKind};

tests![
    a_value_of_another_type_is_refused,
    an_enumerated_option_with_another_value_is_refused,
    a_number_that_is_none_or_out_of_range_is_refused,
    the_bucket_must_have_a_name,
    root_paths_that_cannot_be_part_of_an_object_name_are_refused,
    a_section_that_is_no_object_is_refused,
    certificates_and_a_proxy_that_cannot_be_used_are_refused,
    orthancs_own_options_for_files_have_to_be_usable_in_hybrid_modes,
    without_its_section_the_plugin_warns_and_registers_nothing,
    unknown_options_are_named_in_one_warning,
    every_option_of_the_table_is_known,
    encryption_that_is_not_asked_for_is_accepted,
    an_explicit_hybrid_mode_wins_over_the_deprecated_spelling,
];

/// A week, in seconds.
const LONGEST_TIMEOUT: i64 = 604_800;

/// The options of the section that are of a simple kind: those of every cloud, and this one's own.
fn options<C: Cloud>() -> Vec<(&'static str, OptionKind)> {
    let mut options = vec![
        (C::BUCKET_OPTION, OptionKind::Text),
        ("RootPath", OptionKind::Text),
        ("EnableLegacyUnknownFiles", OptionKind::Flag),
        ("MigrationFromFileSystemEnabled", OptionKind::Flag),
        (C::HTTP_LOG_OPTION, OptionKind::Flag),
        ("StorageStructure", OptionKind::Choice(&["flat", "legacy"])),
        ("HybridMode", OptionKind::Choice(&["Disabled", "WriteToFileSystem", "WriteToObjectStorage"])),
        ("ConnectionTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("ConnectTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("RequestTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("MaxConnections", OptionKind::Number(1..=10_000)),
        ("MaxRetries", OptionKind::Number(0..=1000)),
        ("TransferPoolSize", OptionKind::Number(1..=1000)),
        ("TransferBufferSize", OptionKind::Number(5..=5120)),
    ];
    options.extend(C::options());
    options
}

/// A value that is refused, with the message that goes on after the option.
type Refused = (&'static str, Value, String);

/// Values of types other than text, number and flag, as messages describe them.
fn values_of_no_simple_type() -> [(Value, &'static str); 3] {
    [(json!(null), "null"), (json!(["a"]), "a list"), (json!({"a": 1}), "an object")]
}

fn a_value_of_another_type_is_refused<C: Cloud>() -> Result<()> {
    let mut table: Vec<Refused> = Vec::new();
    for (option, kind) in options::<C>() {
        let no_text = [(json!(5), "5"), (json!(true), "true")];
        let (others, problem): (_, fn(&str) -> String) = match kind {
            OptionKind::Text => (no_text, |described| format!("is {described}: a text is needed")),
            OptionKind::Secret => {
                (no_text, |_| "is not a text: a text in quotation marks is needed".to_owned())
            }
            OptionKind::Flag => ([(json!(1), "1"), (json!("true"), "\"true\"")], |described| {
                format!("is {described}: true or false is needed")
            }),
            OptionKind::Choice(_) | OptionKind::Number(_) => continue,
        };
        let values = others.into_iter().chain(values_of_no_simple_type());
        table.extend(values.map(|(value, described)| (option, value, problem(described))));
    }
    Trials::<C>::start()?.refuse(&table)
}

fn an_enumerated_option_with_another_value_is_refused<C: Cloud>() -> Result<()> {
    let mut table: Vec<Refused> = Vec::new();
    for (option, kind) in options::<C>() {
        let OptionKind::Choice(values) = kind else { continue };
        let needed = format!("one of {} is needed", values.join(", "));
        // The same in other letters is another value.
        let other = |value: &str| values.iter().all(|known| *known != value);
        let spellings = values.iter().flat_map(|value| [value.to_lowercase(), value.to_uppercase()]);
        let texts = spellings.filter(|spelling| other(spelling)).chain([String::new(), "other".to_owned()]);
        table.extend(texts.map(|text| (option, json!(text), format!("is {text:?}: {needed}"))));
        let others = values_of_no_simple_type().into_iter().chain([(json!(1), "1"), (json!(false), "false")]);
        table.extend(others.map(|(value, described)| (option, value, format!("is {described}: {needed}"))));
    }
    Trials::<C>::start()?.refuse(&table)
}

fn a_number_that_is_none_or_out_of_range_is_refused<C: Cloud>() -> Result<()> {
    let mut table: Vec<Refused> = Vec::new();
    for (option, kind) in options::<C>() {
        let OptionKind::Number(range) = kind else { continue };
        let (least, most) = range.into_inner();
        let needed = format!("a whole number from {least} to {most} is needed");
        let numbers = [
            (json!(least - 1), (least - 1).to_string()),
            (json!(most + 1), (most + 1).to_string()),
            (json!(-1_000_000), "-1000000".to_owned()),
            (json!(u64::MAX), u64::MAX.to_string()),
            (json!(7.5), "7.5".to_owned()),
        ];
        let others = [(json!("10"), "\"10\""), (json!(true), "true"), (json!([10]), "a list")];
        let others = others.into_iter().chain(values_of_no_simple_type());
        let others = others.map(|(value, described)| (value, described.to_owned()));
        let values = numbers.into_iter().chain(others);
        table.extend(values.map(|(value, described)| (option, value, format!("is {described}: {needed}"))));
    }
    Trials::<C>::start()?.refuse(&table)
}

fn the_bucket_must_have_a_name<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let (section, option) = (C::SECTION, C::BUCKET_OPTION);
    let nameless = crate::without(trials.section(&json!({})), &[option]);
    let message = format!("option {section}.{option} is missing: a text is needed");
    assert_eq!(trials.flaw(&configuration::<C>(nameless), &message), None);
    trials.refuse(&[(option, json!(""), "is empty: a text is needed")])
}

fn root_paths_that_cannot_be_part_of_an_object_name_are_refused<C: Cloud>() -> Result<()> {
    let slash = "begins with a slash: the path is relative to the bucket, write it without the first /";
    let folder = "an empty, . or .. folder or a control character cannot be part of an object name";
    Trials::<C>::start()?.refuse(&[
        ("RootPath", json!("/"), &format!("is refused: \"/\" {slash}")),
        ("RootPath", json!("/a/b"), &format!("is refused: \"/a/b\" {slash}")),
        ("RootPath", json!("a//b"), &format!("is refused: \"a//b\" has the folder \"\": {folder}")),
        ("RootPath", json!("a/../b"), &format!("is refused: \"a/../b\" has the folder \"..\": {folder}")),
        ("RootPath", json!("./a"), &format!("is refused: \"./a\" has the folder \".\": {folder}")),
        ("RootPath", json!("a\nb"), &format!("is refused: \"a\\nb\" has the folder \"a\\nb\": {folder}")),
    ])
}

fn a_section_that_is_no_object_is_refused<C: Cloud>() -> Result<()> {
    let (mut trials, name) = (Trials::<C>::start()?, C::SECTION);
    for (value, described) in [
        (json!(null), "null"),
        (json!("x"), "\"x\""),
        (json!([]), "a list"),
        (json!(1), "1"),
        (json!(true), "true"),
    ] {
        let message = format!("option {name} is {described}: an object {{…}} is needed");
        assert_eq!(trials.flaw(&configuration::<C>(value), &message), None);
    }
    Ok(())
}

fn certificates_and_a_proxy_that_cannot_be_used_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let folder = tempfile::tempdir()?;
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    let (broken, folder_path) = (folder.path().join("broken.pem"), folder.path());
    std::fs::write(&empty, "no certificate in here\n")?;
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    let no_pem = "no certificates in PEM format: a file of -----BEGIN CERTIFICATE----- blocks is needed";
    let unreadable = "the file cannot be read:";
    let proxy = "is not the address of a proxy: [protocol://][user:password@]host[:port] is needed";
    for (option, value, problem) in [
        ("HttpsCACertificates", json!(5), "is 5: a text is needed".to_owned()),
        ("HttpsCACertificates", json!(null), "is null: a text is needed".to_owned()),
        (
            "HttpsCACertificates",
            json!(missing),
            format!("is {missing:?}: {unreadable} No such file or directory (os error 2)"),
        ),
        (
            "HttpsCACertificates",
            json!(folder_path),
            format!("is {folder_path:?}: {unreadable} Is a directory (os error 21)"),
        ),
        ("HttpsCACertificates", json!(empty), format!("is {empty:?}: {no_pem}")),
        ("HttpsCACertificates", json!(broken), format!("is {broken:?}: {no_pem}")),
        ("HttpProxy", json!(8080), "is 8080: a text is needed".to_owned()),
        ("HttpProxy", json!("not an address"), proxy.to_owned()),
        ("HttpProxy", json!("http://"), proxy.to_owned()),
        ("HttpProxy", json!("user:hunter2@:80"), proxy.to_owned()),
    ] {
        let mut configuration = configuration::<C>(trials.section(&json!({})));
        configuration[option] = value;
        assert_eq!(trials.flaw(&configuration, &format!("option {option} {problem}")), None);
    }
    Ok(())
}

fn orthancs_own_options_for_files_have_to_be_usable_in_hybrid_modes<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let section = trials.section(&json!({"HybridMode": "WriteToFileSystem"}));
    for (option, value, problem) in [
        ("StorageDirectory", json!(5), "option StorageDirectory is 5: a text is needed"),
        ("SyncStorageArea", json!("yes"), "option SyncStorageArea is \"yes\": true or false is needed"),
        (
            "StorageDirectory",
            json!("/dev/null/x"),
            "option StorageDirectory cannot be used: cannot check /dev/null/x: Not a directory (os error 20)",
        ),
    ] {
        let mut configuration = configuration::<C>(section.clone());
        configuration[option] = value;
        assert_eq!(trials.flaw(&configuration, problem), None);
    }
    Ok(())
}

fn without_its_section_the_plugin_warns_and_registers_nothing<C: Cloud>() -> Result<()> {
    let host = load::<C>(json!({"OtherStorage": {}}))??;
    let (name, section) = (C::NAME, C::SECTION);
    let warning = format!("{name}: no section {section:?} in the configuration: the plugin is disabled");
    assert_eq!(host.logs(), [(LogLevel::Warning, warning)]);
    assert_eq!(host.registered(), StorageAreaVersion::None);
    Ok(())
}

fn unknown_options_are_named_in_one_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let section = trials.section(&json!({"Bukket": "x", "maxRetries": 3, "Zone": null}));
    let name = C::SECTION;
    let warning =
        format!("unknown options in the section {name:?}, which have no effect: Bukket, Zone, maxRetries");
    assert_eq!(trials.accept(configuration::<C>(section))?, [warning]);
    Ok(())
}

fn every_option_of_the_table_is_known<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let (_server, section) = C::with_every_secret()?;
    let common = json!({
        "RootPath": "root", "StorageStructure": "legacy", "EnableLegacyUnknownFiles": true, "HybridMode": "Disabled",
        "StorageEncryption": {}, "ConnectionTimeout": 30, "RequestTimeout": 1200, "MaxConnections": 25,
        "ConnectTimeout": 30, "MaxRetries": 10, "TransferPoolSize": 10, "TransferBufferSize": 5, C::HTTP_LOG_OPTION: false,
    });
    let section = with(with(section, &common), &C::every_option());
    for (option, _) in C::options() {
        assert!(section.get(option).is_some(), "every_option() lacks {option}");
    }
    assert_eq!(trials.accept(configuration::<C>(section))?, [""; 0]);
    Ok(())
}

fn encryption_that_is_not_asked_for_is_accepted<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    for none in [json!({}), json!({"Enable": false}), json!({"Enable": false, "MasterKey": [1, "/nowhere"]})]
    {
        let section = trials.section(&json!({"StorageEncryption": none}));
        assert_eq!(trials.accept(configuration::<C>(section))?, [""; 0]);
    }
    Ok(())
}

fn an_explicit_hybrid_mode_wins_over_the_deprecated_spelling<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let section = trials.section(&json!({"HybridMode": "Disabled", "MigrationFromFileSystemEnabled": true}));
    let warning = "the option MigrationFromFileSystemEnabled is deprecated, use \"HybridMode\" instead";
    assert_eq!(trials.accept(configuration::<C>(section))?, [warning]);
    let section = trials.section(&json!({"MigrationFromFileSystemEnabled": false}));
    assert_eq!(trials.accept(configuration::<C>(section))?, [""; 0]);
    Ok(())
}

//! The values that the plugin refuses, with the option and the value in the message, and the spellings that
//! it accepts.

use anyhow::{Context, Result};
use fake_orthanc::{FakeOrthancOptions, LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::fixture::{Trials, configuration, load, own_lines, with, without};
use crate::{Cloud, OptionKind};

tests! {
    EveryCloud:
        values_of_the_wrong_kind_are_refused,
        bucket_name_is_required,
        bucket_is_a_name_alone,
        misspelled_options_are_refused,
        unknown_options_cause_one_warning,
        unencrypted_endpoint_causes_a_warning,
        every_option_is_known;
    OneCloud:
        malformed_root_paths_are_refused,
        options_outside_the_section_are_checked,
        misspelled_section_is_refused,
        options_at_the_root_cause_a_warning,
        plugin_without_its_section_is_disabled,
}

/// A week, in seconds.
const LONGEST_TIMEOUT: i64 = 604_800;
/// Ten years, in hours.
const LONGEST_DELAY: i64 = 87_600;

/// The options of a simple kind: those of every cloud and those of this one.
fn options<C: Cloud>() -> Vec<(&'static str, OptionKind)> {
    let mut options = vec![
        (C::BUCKET_OPTION, OptionKind::Text),
        ("RootPath", OptionKind::Text),
        ("StateDirectory", OptionKind::Text),
        ("Proxy", OptionKind::Text),
        ("DeletionDelay", OptionKind::Number(0..=LONGEST_DELAY)),
        ("EnableLegacyUnknownFiles", OptionKind::Flag),
        ("VerifyChecksums", OptionKind::Flag),
        ("CheckWrite", OptionKind::Flag),
        ("EnablePage", OptionKind::Flag),
        ("MigrationFromFileSystemEnabled", OptionKind::Flag),
        (C::HTTP_LOG_OPTION, OptionKind::Flag),
        ("StorageStructure", OptionKind::Choice(&["flat", "legacy"])),
        ("HybridMode", OptionKind::Choice(&["Disabled", "WriteToFileSystem", "WriteToObjectStorage"])),
        ("ConnectionTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("ConnectTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("RequestTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("MaxConnections", OptionKind::Number(1..=10_000)),
        ("MaxRetries", OptionKind::Number(0..=1000)),
        ("OutageTimeout", OptionKind::Number(1..=LONGEST_TIMEOUT)),
        ("TransferPoolSize", OptionKind::Number(1..=1000)),
        ("TransferBufferSize", OptionKind::Number(5..=5120)),
    ];
    options.extend(C::options());
    options
}

/// Returns values that an option of this kind refuses, each with its description in the message.
fn refused_values(kind: OptionKind) -> Vec<(Value, String)> {
    let shown = |value: Value| {
        let text = value.to_string();
        (value, text)
    };
    let (values, is_shown) = match kind {
        OptionKind::Text => (vec![json!(5), json!(true)], true),
        OptionKind::Secret => (vec![json!(5), json!(true)], false),
        OptionKind::Flag => (vec![json!(1), json!("true")], true),
        OptionKind::Choice(choices) => {
            // Choices are case-sensitive.
            let spellings = choices.iter().flat_map(|value| [value.to_lowercase(), value.to_uppercase()]);
            let mut values: Vec<_> =
                spellings.filter(|text| !choices.contains(&text.as_str())).map(Value::from).collect();
            values.extend([json!(""), json!("other"), json!(1), json!(false)]);
            (values, true)
        }
        OptionKind::Number(range) => {
            let (least, most) = range.into_inner();
            let numbers = [json!(least - 1), json!(most + 1), json!(-1_000_000), json!(u64::MAX), json!(7.5)];
            ([&numbers[..], &[json!("10"), json!(true)]].concat(), true)
        }
    };
    let mut refused: Vec<_> = values.into_iter().map(shown).collect();
    for (value, description) in [(json!(null), "null"), (json!(["a"]), "list"), (json!({"a": 1}), "object")] {
        refused.push((value, description.to_owned()));
    }
    if !is_shown {
        refused.iter_mut().for_each(|(_, description)| description.clear());
    }
    refused
}

fn values_of_the_wrong_kind_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    for (option, kind) in options::<C>() {
        let values = refused_values(kind).into_iter();
        let table: Vec<_> = values.map(|(value, description)| (option, value, description)).collect();
        trials.refuse(&table)?;
    }
    for value in [json!(null), json!("x"), json!([]), json!(1), json!(true)] {
        trials.refused(&configuration::<C>(value), &[C::SECTION])?;
    }
    Ok(())
}

fn bucket_name_is_required<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let nameless = without(trials.section(&json!({})), &[C::BUCKET_OPTION]);
    let name = format!("{}.{}", C::SECTION, C::BUCKET_OPTION);
    trials.refused(&configuration::<C>(nameless), &[name])?;
    trials.refuse(&[(C::BUCKET_OPTION, json!(""), "empty")])
}

fn malformed_root_paths_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    for path in ["/", "/a/b", "a//b", "a/../b", "./a", "a\nb"] {
        trials.refuse(&[("RootPath", json!(path), format!("{path:?}"))])?;
    }
    Ok(())
}

fn options_outside_the_section_are_checked<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("empty.pem"), "no certificate in here\n")?;
    std::fs::write(path("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    let hybrid = json!({"HybridMode": "WriteToFileSystem"});
    for (option, value, fragment) in [
        ("HttpsCACertificates", json!(5), "5"),
        ("HttpsCACertificates", json!(null), "null"),
        ("HttpsCACertificates", json!(path("missing.pem")), "No such file"),
        ("HttpsCACertificates", json!(path("")), "Is a directory"),
        ("HttpsCACertificates", json!(path("empty.pem")), "empty.pem"),
        ("HttpsCACertificates", json!(path("broken.pem")), "broken.pem"),
        ("HttpProxy", json!(8080), "8080"),
        ("HttpProxy", json!("not an address"), ""),
        ("HttpProxy", json!("http://"), ""),
        ("HttpProxy", json!("user:hunter2@:80"), ""),
        ("StorageDirectory", json!(5), "5"),
        ("StorageDirectory", json!("/dev/null/x"), "/dev/null/x"),
        ("SyncStorageArea", json!("yes"), "\"yes\""),
    ] {
        let mut configuration = configuration::<C>(trials.section(&hybrid));
        configuration[option] = value;
        let line = trials.refused(&configuration, &[option, fragment])?;
        assert!(!line.contains("hunter2"), "{line}");
    }
    Ok(())
}

fn plugin_without_its_section_is_disabled<C: Cloud>() -> Result<()> {
    let orthanc = load::<C>(json!({"OtherStorage": {}}))??;
    let [(LogLevel::Warning, line)] = &orthanc.logs()[..] else { anyhow::bail!("{:#?}", orthanc.logs()) };
    assert!(line.starts_with(C::NAME) && line.contains(C::SECTION) && line.contains("disabled"), "{line}");
    assert_eq!(orthanc.registered(), StorageAreaVersion::None);
    let description =
        format!("{} (disabled: the configuration has no section {:?})", C::DESCRIPTION, C::SECTION);
    assert_eq!(orthanc.description(), Some(description));
    Ok(())
}

fn unknown_options_cause_one_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    // Options of other clouds, of Orthanc and of nobody. A comment is none.
    let unknown =
        json!({"Bukket": "x", "HttpVerbose": true, "Zone": null, "_comment": "x", "//MaxRetries": 1});
    let warnings = trials.accept(trials.section(&unknown))?;
    let [line] = &warnings[..] else { anyhow::bail!("{warnings:#?}") };
    assert!(line.contains(C::SECTION) && line.ends_with(": Bukket, HttpVerbose, Zone"), "{line}");
    Ok(())
}

fn misspelled_options_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let all = with(with(trials.section(&json!({})), &C::every_option()), &json!({"StorageEncryption": {}}));
    for option in all.as_object().context("no object")?.keys() {
        let typo = format!("{}{}", &option[..2], &option[3..]);
        for name in [option.to_lowercase(), typo] {
            let section = trials.section(&json!({ &name: null }));
            let name = format!("`{}.{name}`", C::SECTION);
            trials.refused(&configuration::<C>(section), &[&name, &format!("did you mean {option}?")])?;
        }
    }
    for section in [
        json!({"MasterKey": [1, "/x"]}),
        json!({"StorageEncryption": {"Enable": false, "OldMasterKeys": []}}),
    ] {
        trials.refused(&configuration::<C>(trials.section(&section)), &["did you mean"])?;
    }
    let nameless = without(trials.section(&json!({"buckett": 1})), &[C::BUCKET_OPTION]);
    let misspelled = C::BUCKET_OPTION.to_lowercase();
    let section = with(nameless, &json!({ &misspelled: "x" }));
    trials.refused(&configuration::<C>(section), &[&misspelled, "did you mean"])?;
    Ok(())
}

fn misspelled_section_is_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let section = trials.section(&json!({}));
    for name in [C::SECTION.to_uppercase(), C::SECTION[1..].to_owned(), format!("{}s", C::SECTION)] {
        trials.refused(&json!({ &name: section }), &[&format!("`{name}`"), "did you mean", C::SECTION])?;
    }
    for name in ["StorageEncyption", "storageencryption", "MasterKey"] {
        let outside = with(configuration::<C>(section.clone()), &json!({ name: {} }));
        trials.refused(&outside, &[&format!("`{name}`"), "did you mean"])?;
    }
    // With the right one, and in comments, they are no mistake of this plugin.
    let right = with(configuration::<C>(section), &json!({C::SECTION.to_uppercase(): {}, "_MasterKey": 1}));
    trials.orthanc.reset(FakeOrthancOptions::with_configuration(right))?;
    assert_eq!(trials.orthanc.registered(), StorageAreaVersion::Two);
    for comment in ["_", "//"] {
        let commented = json!({ format!("{comment}{}", C::SECTION): {} });
        trials.orthanc.reset(FakeOrthancOptions::with_configuration(commented))?;
        assert_eq!(trials.orthanc.registered(), StorageAreaVersion::None, "{comment}");
    }
    Ok(())
}

fn options_at_the_root_cause_a_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let outside =
        json!({"RootPath": "x", "HybridMode": 5, C::BUCKET_OPTION: "hunter2", "StorageDirectory": "/tmp"});
    let mut named = ["RootPath", "HybridMode", C::BUCKET_OPTION];
    named.sort_unstable();
    for (configuration, others) in
        [(configuration::<C>(trials.section(&json!({}))), "encrypt"), (json!({}), "disabled")]
    {
        trials.orthanc.reset(FakeOrthancOptions::with_configuration(with(configuration, &outside)))?;
        let mut warnings = own_lines::<C>(&trials.orthanc.logs(), LogLevel::Warning);
        warnings.retain(|line| !line.contains(others));
        let [line] = &warnings[..] else { anyhow::bail!("{warnings:#?}") };
        assert!(line.contains(&format!(": {}; ", named.join(", "))) && line.contains(C::SECTION), "{line}");
    }
    Ok(())
}

fn bucket_is_a_name_alone<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let advice = format!("\"{}\": \"images\"", C::BUCKET_OPTION);
    trials.refuse(&[
        (C::BUCKET_OPTION, json!("s3://images/ct"), &*advice),
        (C::BUCKET_OPTION, json!("https://host/images"), "a URL"),
        (C::BUCKET_OPTION, json!("arn:aws:s3:::images"), &*advice),
        (C::BUCKET_OPTION, json!("images/ct"), &*advice),
    ])
}

fn unencrypted_endpoint_causes_a_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    // No server has an address of this network.
    let endpoint = "http://192.0.2.1:9";
    let impatient = json!({"ConnectTimeout": 1, "ConnectionTimeout": 1, "MaxRetries": 0});
    let warnings = trials.accept(with(C::section(endpoint), &impatient))?;
    let is_expected = |line: &String| line.contains(endpoint) && line.contains("not encrypted");
    assert_eq!(warnings.iter().filter(|line| is_expected(line)).count(), 1, "{warnings:#?}");
    let loopback = trials.section(&json!({}));
    assert_eq!(trials.accept(loopback)?, [""; 0]);
    Ok(())
}

fn every_option_is_known<C: Cloud>() -> Result<()> {
    let (_server, cloud) = C::with_every_secret()?;
    let common = json!({
        "RootPath": "root", "StorageStructure": "legacy", "EnableLegacyUnknownFiles": true, "VerifyChecksums": false,
        "CheckWrite": true, "EnablePage": true, "HybridMode": "Disabled", "StorageEncryption": {}, "ConnectionTimeout": 30, "RequestTimeout": 1200,
        "MaxConnections": 25, "ConnectTimeout": 30, "MaxRetries": 10, "TransferPoolSize": 10,
        "TransferBufferSize": 5, C::HTTP_LOG_OPTION: false,
    });
    let section = with(with(cloud, &common), &C::every_option());
    for (option, _) in C::options() {
        section.get(option).with_context(|| format!("every_option() lacks {option}"))?;
    }
    let orthanc = load::<C>(configuration::<C>(section))??;
    let warnings = own_lines::<C>(&orthanc.logs(), LogLevel::Warning);
    assert_eq!(warnings.len(), 1, "only the one about missing encryption: {warnings:#?}");
    Ok(())
}

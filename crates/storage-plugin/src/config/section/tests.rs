use serde_json::json;

use super::*;

fn configuration() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "S": {
            "String": "a", "Empty": "", "Number": 7, "Flag": true, "Choice": "b", "Strings": {"k": "v"},
            "Sub": {"X": 1}, "Typo": 1
        },
        "NoSection": 5
    }) else {
        unreachable!()
    };
    map
}

#[test]
fn options_have_values_or_defaults() {
    let configuration = configuration();
    let mut section = Section::find(&configuration, "S").unwrap().unwrap();
    assert_eq!(section.string("String").unwrap().as_deref(), Some("a"));
    assert_eq!(section.string("Missing").unwrap(), None);
    assert_eq!(section.non_empty("Empty").unwrap(), None);
    assert_eq!(section.secret("Empty").unwrap(), None);
    assert_eq!(section.number("Number", 1, 0..=9), Ok(7));
    assert_eq!(section.number("Missing", 1, 0..=9), Ok(1));
    assert_eq!(section.flag("Flag", false), Ok(true));
    assert_eq!(section.choice("Choice", &["a", "b"]), Ok(Some("b")));
    assert_eq!(section.strings("Strings").unwrap(), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    assert_eq!(section.optional_flag("Flag"), Ok(Some(true)));
    assert_eq!(section.optional_flag("Missing"), Ok(None));
    assert_eq!(section.subsection("Sub", |sub| sub.number("X", 0, 0..=9)), Ok(Some(1)));
    assert_eq!(section.unread().collect::<Vec<_>>(), ["Typo"]);
    assert_eq!(section.read_options_in(&configuration), [""; 0]);
}

/// Reads a section that knows these options, and returns the error about their names.
fn misspelled(options: &Value, known: &'static [&'static str]) -> Option<String> {
    let Value::Object(configuration) = json!({ "S": options }) else { unreachable!() };
    let section = Section::find(&configuration, "S").unwrap().unwrap();
    let read = |section: &mut Section<'_>| {
        section.know(known);
        Ok::<_, ConfigError>(())
    };
    section.read(read).err().map(|error| error.to_string())
}

#[test]
fn misspelled_options_are_refused() {
    for (options, known, expected) in [
        (json!({"BuckeName": "x"}), "BucketName", "`S.BuckeName` is not an option; did you mean BucketName?"),
        (json!({"REGION": "x"}), "Region", "`S.REGION` is not an option; did you mean Region?"),
        (
            json!({"OldMasterKeys": []}),
            "Region",
            "`S.OldMasterKeys` is not an option; did you mean MasterKey or PreviousMasterKeys in StorageEncryption?",
        ),
        (
            json!({"Encryption": {"masterKey": [1, "/etc/orthanc/1.key"]}}),
            "Region",
            "`S.Encryption` is not an option; did you mean StorageEncryption?",
        ),
    ] {
        let known: &'static [&'static str] = Vec::leak(vec![known]);
        assert_eq!(misspelled(&options, known).as_deref(), Some(expected));
    }
    let harmless = json!({"_BucketName": 1, "//": "Region", "Zone": {"_MasterKey": 1}, "BucketName": "x"});
    assert_eq!(misspelled(&harmless, &["BucketName", "Region"]), None);
}

#[test]
fn missing_option_is_found_misspelled() {
    let Value::Object(configuration) = json!({"S": {"Buckets": 1, "bucketName": "x"}}) else {
        unreachable!()
    };
    let mut section = Section::find(&configuration, "S").unwrap().unwrap();
    let message = |option, section: &mut Section<'_>| section.required(option).unwrap_err().to_string();
    let expected = "`S.bucketName` is not an option; did you mean BucketName?";
    assert_eq!(message("BucketName", &mut section), expected);
    assert_eq!(message("Region", &mut section), "`S.Region` is missing; it must be a string");
}

#[test]
fn missing_section_is_none() {
    assert!(Section::find(&configuration(), "Absent").unwrap().is_none());
}

#[test]
fn secrets_are_trimmed_and_have_no_control_characters() {
    let secret = |value: &str| {
        let Value::Object(configuration) = json!({"S": {"Key": value}}) else { unreachable!() };
        Section::find(&configuration, "S").unwrap().unwrap().secret("Key")
    };
    assert_eq!(secret(" hunter2\r\n").unwrap(), Some(Secret("hunter2".to_owned())));
    assert_eq!(secret(" \n").unwrap(), None);
    for value in ["hunter2\nhunter2", "hunter2\u{7f}x", "a\0hunter2"] {
        let message = secret(value).unwrap_err().to_string();
        assert_eq!(message, "`S.Key` must not contain control characters such as line breaks");
    }
}

#[test]
fn debug_output_has_no_secret() {
    assert_eq!(format!("{:?}", Secret("hunter2".to_owned())), "Secret(…)");
    let Value::Object(configuration) = json!({"S": {"Password": "hunter2"}}) else { unreachable!() };
    let section = Section::find(&configuration, "S").unwrap().unwrap();
    assert_eq!(format!("{section:?}"), "Section { name: \"S\", options: [\"Password\"], .. }");
}

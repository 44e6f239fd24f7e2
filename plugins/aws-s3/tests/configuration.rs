//! Every value that the plugin refuses, with its whole message, and the spellings that it accepts.

mod common;

use anyhow::{Result, bail};
use common::{DICOM, KEY, Setup, UUID, configuration, done, library, section, with, without};
use serde_json::{Value, json};
use test_bucket::{BucketServer, Options};
use test_host::{HostOptions, LoadError, LogLevel, StorageAreaVersion, TestHost};

/// A plugin that is given one configuration after the other.
struct Trials {
    host: TestHost,
    server: BucketServer,
}

impl Trials {
    fn start() -> Result<Self> {
        let server = BucketServer::start(Options::default())?;
        // Disabled, so that there is a host whose registrations can be seen after each refusal.
        let host = TestHost::load(library()?, HostOptions::default())?;
        Ok(Self { host, server })
    }

    /// The section with these options changed.
    fn section(&self, options: &Value) -> Value {
        with(section(&self.server), options)
    }

    /// What is wrong with the way in which the plugin refuses a configuration; `None` when it is as expected: -1, this
    /// one error line, nothing registered, nothing asked of the server.
    fn flaw(&mut self, configuration: &Value, message: &str) -> Option<String> {
        let options = HostOptions::with_configuration(configuration.clone());
        let refusal = match self.host.reset(options) {
            Err(LoadError::Initialize { code: -1, logs }) => logs,
            other => return Some(format!("{configuration}: not refused with -1 but {other:?}")),
        };
        let errors = refusal.into_iter().filter(|line| line.0 == LogLevel::Error).map(|line| line.1);
        let (errors, expected) = (errors.collect::<Vec<_>>(), [format!("AWS S3 Storage: {message}")]);
        let registered = self.host.registered();
        let requests = self.server.requests().total;
        if errors != expected || registered != StorageAreaVersion::None || requests != 0 {
            return Some(format!(
                "{configuration}: {errors:#?} instead of {expected:#?}, {registered:?}, {requests} requests"
            ));
        }
        None
    }

    /// Holds many values of options of the section against their messages, which begin with the option's name.
    fn refuse(&mut self, table: &[(&str, Value, &str)]) -> Result<()> {
        let flaws = table.iter().filter_map(|(option, value, problem)| {
            let configuration = configuration(&self.section(&json!({ *option: value })));
            self.flaw(&configuration, &format!("option AwsS3Storage.{option} {problem}"))
        });
        let flaws: Vec<_> = flaws.collect();
        if flaws.is_empty() { Ok(()) } else { bail!("{}", flaws.join("\n")) }
    }

    /// Loads an accepted configuration, and returns the warnings but for the one about patient data in clear.
    fn accept(&mut self, configuration: Value) -> Result<Vec<String>> {
        self.host.reset(HostOptions::with_configuration(configuration))?;
        assert_eq!(self.host.registered(), StorageAreaVersion::Two);
        assert_eq!(self.host.logs_at(LogLevel::Error), [""; 0]);
        let mut warnings = self.host.logs_at(LogLevel::Warning);
        warnings.retain(|line| !line.contains("patient data in clear"));
        Ok(warnings)
    }
}

/// A value of another type than text in the words of the messages.
const TEXT: &str = "a text is needed";
const FLAG: &str = "true or false is needed";

#[test]
fn a_value_of_another_type_is_refused() -> Result<()> {
    let texts = ["RootPath", "BucketName", "Region", "Endpoint", "KmsKeyId"];
    let flags = [
        "EnableLegacyUnknownFiles",
        "MigrationFromFileSystemEnabled",
        "VirtualAddressing",
        "UseTransferManager",
        "EnableAwsSdkLogs",
    ];
    let secrets = ["AccessKey", "SecretKey", "SessionToken"];
    let mut trials = Trials::start()?;
    let mut table = Vec::new();
    for (value, described) in [
        (json!(5), "5"),
        (json!(true), "true"),
        (json!(null), "null"),
        (json!(["a"]), "a list"),
        (json!({}), "an object"),
    ] {
        table.extend(texts.map(|option| (option, value.clone(), format!("is {described}: {TEXT}"))));
        let secret = "is not a text: a text in quotation marks is needed".to_owned();
        table.extend(secrets.map(|option| (option, value.clone(), secret.clone())));
    }
    for (value, described) in [
        (json!(1), "1"),
        (json!("true"), "\"true\""),
        (json!(null), "null"),
        (json!([]), "a list"),
        (json!({}), "an object"),
    ] {
        table.extend(flags.map(|option| (option, value.clone(), format!("is {described}: {FLAG}"))));
    }
    let table: Vec<_> =
        table.iter().map(|(option, value, problem)| (*option, value.clone(), problem.as_str())).collect();
    trials.refuse(&table)
}

#[test]
fn an_enumerated_option_with_another_value_is_refused() -> Result<()> {
    let structure = "one of flat, legacy is needed";
    let hybrid = "one of Disabled, WriteToFileSystem, WriteToObjectStorage is needed";
    let class = "one of STANDARD, REDUCED_REDUNDANCY, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING, GLACIER, \
                 DEEP_ARCHIVE, OUTPOSTS, GLACIER_IR, SNOW is needed";
    let encryption = "one of AES256, aws:kms, aws:kms:dsse is needed";
    let mut table = Vec::new();
    for (option, other, needed) in [
        ("StorageStructure", "Flat", structure),
        ("HybridMode", "disabled", hybrid),
        ("StorageClass", "standard", class),
        ("ServerSideEncryption", "AES128", encryption),
    ] {
        table.push((option, json!(other), format!("is {other:?}: {needed}")));
        table.push((option, json!(""), format!("is \"\": {needed}")));
        table.push((option, json!(1), format!("is 1: {needed}")));
        table.push((option, json!(false), format!("is false: {needed}")));
        table.push((option, json!(null), format!("is null: {needed}")));
        table.push((option, json!(["x"]), format!("is a list: {needed}")));
        table.push((option, json!({}), format!("is an object: {needed}")));
    }
    let table: Vec<_> =
        table.iter().map(|(option, value, problem)| (*option, value.clone(), problem.as_str())).collect();
    Trials::start()?.refuse(&table)
}

#[test]
fn a_number_that_is_none_or_out_of_range_is_refused() -> Result<()> {
    let mut table = Vec::new();
    for (option, least, most) in [
        ("ConnectTimeout", 1, 604_800),
        ("ConnectionTimeout", 1, 604_800),
        ("RequestTimeout", 1, 604_800),
        ("MaxConnections", 1, 10_000),
        ("MaxRetries", 0, 1000),
        ("TransferPoolSize", 1, 1000),
        ("TransferBufferSize", 5, 5120),
    ] {
        let needed = format!("a whole number from {least} to {most} is needed");
        for (value, described) in [
            (json!(least - 1), (least - 1).to_string()),
            (json!(most + 1), (most + 1).to_string()),
            (json!(-1_000_000), "-1000000".to_owned()),
            (json!(u64::MAX), u64::MAX.to_string()),
            (json!(7.5), "7.5".to_owned()),
            (json!("10"), "\"10\"".to_owned()),
            (json!(true), "true".to_owned()),
            (json!(null), "null".to_owned()),
            (json!([10]), "a list".to_owned()),
            (json!({"x": 10}), "an object".to_owned()),
        ] {
            table.push((option, value, format!("is {described}: {needed}")));
        }
    }
    let table: Vec<_> =
        table.iter().map(|(option, value, problem)| (*option, value.clone(), problem.as_str())).collect();
    Trials::start()?.refuse(&table)
}

#[test]
fn root_paths_that_cannot_be_part_of_an_object_name_are_refused() -> Result<()> {
    let slash = "begins with a slash: the path is relative to the bucket, write it without the first /";
    let folder = "an empty, . or .. folder or a control character cannot be part of an object name";
    Trials::start()?.refuse(&[
        ("RootPath", json!("/"), &format!("is refused: \"/\" {slash}")),
        ("RootPath", json!("/a/b"), &format!("is refused: \"/a/b\" {slash}")),
        ("RootPath", json!("a//b"), &format!("is refused: \"a//b\" has the folder \"\": {folder}")),
        ("RootPath", json!("a/../b"), &format!("is refused: \"a/../b\" has the folder \"..\": {folder}")),
        ("RootPath", json!("./a"), &format!("is refused: \"./a\" has the folder \".\": {folder}")),
        ("RootPath", json!("a\nb"), &format!("is refused: \"a\\nb\" has the folder \"a\\nb\": {folder}")),
    ])
}

#[test]
fn tags_that_s3_does_not_take_are_refused() -> Result<()> {
    let object = "an object of texts, as {\"name\": \"value\"}, is needed";
    let limits = "a key of 1 to 128 and a value of up to 256 characters is needed";
    let (key, value) = ("k".repeat(129), "v".repeat(257));
    let eleven: Value =
        (0..11).map(|tag| (tag.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    Trials::start()?.refuse(&[
        ("Tags", json!("a=b"), &format!("is \"a=b\": {object}")),
        ("Tags", json!(["a"]), &format!("is a list: {object}")),
        ("Tags", json!(null), &format!("is null: {object}")),
        ("Tags", json!({"a": 1}), &format!("has 1 for a: {object}")),
        ("Tags", json!({"a": null}), &format!("has null for a: {object}")),
        ("Tags", json!({"": "x"}), &format!("has the tag \"\": {limits}")),
        ("Tags", json!({&key: "x"}), &format!("has the tag {key:?}: {limits}")),
        ("Tags", json!({"a": value}), &format!("has the tag \"a\": {limits}")),
        ("Tags", eleven, "has 11 tags: at most 10 are allowed"),
    ])
}

#[test]
fn options_that_need_each_other_are_refused_alone() -> Result<()> {
    let mut trials = Trials::start()?;
    let complete = trials.section(&json!({}));
    let access_key =
        "option AwsS3Storage.AccessKey is missing: it goes together with SecretKey and SessionToken";
    let secret_key = "option AwsS3Storage.SecretKey is missing: it goes together with AccessKey";
    let kms = "option AwsS3Storage.KmsKeyId is given: \"ServerSideEncryption\": \"aws:kms\" or \"aws:kms:dsse\" is \
               needed too";
    let keyless = without(complete.clone(), &["AccessKey", "SecretKey"]);
    let flaws: Vec<_> = [
        (
            without(complete.clone(), &["BucketName"]),
            "option AwsS3Storage.BucketName is missing: a text is needed",
        ),
        (without(complete.clone(), &["Region"]), "option AwsS3Storage.Region is missing: a text is needed"),
        (
            with(complete.clone(), &json!({"BucketName": ""})),
            "option AwsS3Storage.BucketName is empty: a text is needed",
        ),
        (
            with(complete.clone(), &json!({"Region": ""})),
            "option AwsS3Storage.Region is empty: a text is needed",
        ),
        (without(complete.clone(), &["AccessKey"]), access_key),
        (without(complete.clone(), &["SecretKey"]), secret_key),
        (with(keyless.clone(), &json!({"SessionToken": "t"})), access_key),
        (with(keyless, &json!({"SessionToken": "t", "SecretKey": "s"})), access_key),
        (with(complete.clone(), &json!({"KmsKeyId": "k"})), kms),
        (with(complete, &json!({"KmsKeyId": "k", "ServerSideEncryption": "AES256"})), kms),
    ]
    .iter()
    .filter_map(|(section, message)| trials.flaw(&configuration(section), message))
    .collect();
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    Ok(())
}

#[test]
fn an_endpoint_that_is_no_host_is_refused_without_showing_a_password() -> Result<()> {
    let needed = "[https://]host[:port] is needed";
    let more = format!("has more than a host: {needed}");
    Trials::start()?.refuse(&[
        ("Endpoint", json!("http://"), &format!("is \"http://\": not a URL: {needed}")),
        ("Endpoint", json!("https://a b"), &format!("is \"https://a b\": not a URL: {needed}")),
        ("Endpoint", json!("host:port"), &format!("is \"host:port\": not a URL: {needed}")),
        ("Endpoint", json!("http://host:65536"), &format!("is \"http://host:65536\": not a URL: {needed}")),
        ("Endpoint", json!("s3://bucket"), &format!("is \"s3://bucket\": neither https nor http: {needed}")),
        ("Endpoint", json!("ftp://host"), &format!("is \"ftp://host\": neither https nor http: {needed}")),
        ("Endpoint", json!("https://user@host"), &more),
        ("Endpoint", json!("https://user:hunter2@host"), &more),
        ("Endpoint", json!("user:hunter2@host"), &more),
        ("Endpoint", json!("https://host/?query=1"), &more),
        ("Endpoint", json!("https://host/#fragment"), &more),
    ])
}

#[test]
fn a_bucket_cannot_be_part_of_an_ip_address() -> Result<()> {
    let mut trials = Trials::start()?;
    for endpoint in [trials.server.endpoint(), "https://[::1]:9000".to_owned(), "10.0.0.1".to_owned()] {
        let section = trials.section(&json!({"Endpoint": endpoint, "VirtualAddressing": true}));
        let message = format!(
            "option AwsS3Storage.VirtualAddressing is true, but {endpoint:?} has an IP address for a host: false is \
             needed"
        );
        assert_eq!(trials.flaw(&configuration(&section), &message), None);
        // It is the default.
        let section = without(section, &["VirtualAddressing"]);
        assert_eq!(trials.flaw(&configuration(&section), &message), None);
    }
    Ok(())
}

#[test]
fn a_section_that_is_no_object_is_refused() -> Result<()> {
    let mut trials = Trials::start()?;
    for (value, described) in [
        (json!(null), "null"),
        (json!("x"), "\"x\""),
        (json!([]), "a list"),
        (json!(1), "1"),
        (json!(true), "true"),
    ] {
        let message = format!("option AwsS3Storage is {described}: an object {{…}} is needed");
        assert_eq!(trials.flaw(&configuration(&value), &message), None);
    }
    Ok(())
}

#[test]
fn certificates_and_a_proxy_that_cannot_be_used_are_refused() -> Result<()> {
    let mut trials = Trials::start()?;
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
        let mut configuration = configuration(&section(&trials.server));
        configuration[option] = value;
        assert_eq!(trials.flaw(&configuration, &format!("option {option} {problem}")), None);
    }
    Ok(())
}

#[test]
fn orthancs_own_options_for_files_have_to_be_usable_in_hybrid_modes() -> Result<()> {
    let mut trials = Trials::start()?;
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
        let mut configuration = configuration(&section);
        configuration[option] = value;
        assert_eq!(trials.flaw(&configuration, problem), None);
    }
    Ok(())
}

#[test]
fn without_its_section_the_plugin_warns_and_registers_nothing() -> Result<()> {
    let host = TestHost::load(library()?, HostOptions::with_configuration(json!({"BlobStorage": {}})))?;
    let warning = "AWS S3 Storage: no section \"AwsS3Storage\" in the configuration: the plugin is disabled";
    assert_eq!(host.logs(), [(LogLevel::Warning, warning.to_owned())]);
    assert_eq!(host.registered(), StorageAreaVersion::None);
    Ok(())
}

#[test]
fn unknown_options_are_named_in_one_warning() -> Result<()> {
    let mut trials = Trials::start()?;
    let section = trials.section(&json!({"Bucket": "x", "maxRetries": 3, "Zone": null}));
    let warning = "AWS S3 Storage: unknown options in the section \"AwsS3Storage\", which have no effect: Bucket, \
                   Zone, maxRetries";
    assert_eq!(trials.accept(configuration(&section))?, [warning]);
    Ok(())
}

#[test]
fn every_option_of_the_table_is_known() -> Result<()> {
    let mut trials = Trials::start()?;
    let section = trials.section(&json!({
        "RootPath": "root", "StorageStructure": "legacy", "EnableLegacyUnknownFiles": true, "HybridMode": "Disabled",
        "StorageEncryption": {}, "ConnectionTimeout": 30, "ConnectTimeout": 30, "RequestTimeout": 1200,
        "MaxConnections": 25, "MaxRetries": 10, "UseTransferManager": true, "TransferPoolSize": 10,
        "TransferBufferSize": 5, "StorageClass": "STANDARD", "Tags": {"a": "b"}, "EnableAwsSdkLogs": false,
        "ServerSideEncryption": "aws:kms", "KmsKeyId": "key"
    }));
    assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
    Ok(())
}

#[test]
fn encryption_that_is_not_asked_for_is_accepted() -> Result<()> {
    let mut trials = Trials::start()?;
    for none in [json!({}), json!({"Enable": false}), json!({"Enable": false, "MasterKey": [1, "/nowhere"]})]
    {
        let section = trials.section(&json!({"StorageEncryption": none}));
        assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
    }
    Ok(())
}

#[test]
fn an_explicit_hybrid_mode_wins_over_the_deprecated_spelling() -> Result<()> {
    let mut trials = Trials::start()?;
    let section = trials.section(&json!({"HybridMode": "Disabled", "MigrationFromFileSystemEnabled": true}));
    let warning =
        "AWS S3 Storage: the option MigrationFromFileSystemEnabled is deprecated, use \"HybridMode\" instead";
    assert_eq!(trials.accept(configuration(&section))?, [warning]);
    let section = trials.section(&json!({"MigrationFromFileSystemEnabled": false}));
    assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
    Ok(())
}

#[test]
fn endpoints_are_accepted_with_slashes_and_blanks_and_with_a_path() -> Result<()> {
    let mut trials = Trials::start()?;
    let endpoint = trials.server.endpoint();
    for spelled in [format!("{endpoint}/"), format!("{endpoint}//"), format!(" {endpoint} ")] {
        let section = trials.section(&json!({"Endpoint": spelled}));
        assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
    }
    // Some gateways serve S3 under a folder. This server takes the folder for the bucket, which makes no difference.
    trials.server.insert("gateway", "some", "object");
    let section = trials.section(&json!({"Endpoint": format!("{endpoint}/gateway/")}));
    assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
    done(trials.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(trials.server.keys("gateway"), [&format!("bucket/{}", KEY), "some"]);
    Ok(())
}

#[test]
fn an_endpoint_without_a_scheme_is_https() -> Result<()> {
    let mut trials = Trials::start()?;
    let endpoint = format!("127.0.0.1:{}", trials.server.port());
    let section = trials.section(&json!({"Endpoint": endpoint}));
    // The server speaks no TLS: a greeting in TLS is no request to it, and its answer none to the plugin.
    let warnings = trials.accept(configuration(&section))?;
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(
        warnings[0].starts_with("AWS S3 Storage: cannot check s3://bucket: cannot connect: "),
        "{warnings:#?}"
    );
    assert_eq!(trials.server.requests().total, 0);
    Ok(())
}

#[test]
fn an_endpoint_in_clear_beyond_this_machine_gets_a_warning() -> Result<()> {
    let server = BucketServer::start(Options {
        virtual_host_domain: Some("s3.test".to_owned()),
        ..Options::default()
    })?;
    let section = with(section(&server), &json!({"Endpoint": "http://s3.test", "VirtualAddressing": true}));
    let mut configuration = configuration(&section);
    configuration["HttpProxy"] = json!(server.endpoint());
    let setup = Setup::load(server, configuration)?;
    let warnings = setup.host.logs_at(LogLevel::Warning);
    let warning = "AWS S3 Storage: the endpoint http://bucket.s3.test/ is not encrypted: use https";
    assert!(warnings.iter().any(|line| line == warning), "{warnings:#?}");
    Ok(())
}

#[test]
fn every_storage_class_and_server_side_encryption_is_accepted_and_sent() -> Result<()> {
    let classes = [
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "OUTPOSTS",
        "GLACIER_IR",
        "SNOW",
    ]
    .map(|class| json!({"StorageClass": class}));
    let encryptions = ["AES256", "aws:kms", "aws:kms:dsse"].map(|name| json!({"ServerSideEncryption": name}));
    let mut trials = Trials::start()?;
    for options in classes.iter().chain(&encryptions) {
        let section = trials.section(options);
        assert_eq!(trials.accept(configuration(&section))?, [""; 0]);
        done(trials.host.create(UUID, DICOM, b"x"))?;
        let stored = trials.server.remove("bucket", KEY);
        let stored = stored.map(|stored| (stored.storage_class, stored.server_side_encryption));
        let sent = |option: &str| options[option].as_str().map(str::to_owned);
        assert_eq!(stored, Some((sent("StorageClass"), sent("ServerSideEncryption"))));
    }
    Ok(())
}

#[test]
fn both_spellings_of_the_connection_timeout_count_and_the_newer_one_wins() -> Result<()> {
    let mut trials = Trials::start()?;
    for (options, seconds) in [
        (json!({"ConnectTimeout": 1}), 1),
        (json!({"ConnectionTimeout": 2}), 2),
        (json!({"ConnectionTimeout": 1, "ConnectTimeout": 604_800}), 1),
    ] {
        // Silence of the server at the start is a warning, which tells the limit.
        let rule = test_bucket::FaultRule::new(test_bucket::Fault::Delay(std::time::Duration::from_secs(5)));
        trials.server.faults().push(rule);
        let section = trials.section(&options);
        let warning = format!(
            "AWS S3 Storage: cannot check s3://bucket: nothing moved for {seconds} s; going on, since the server may \
             come up later"
        );
        assert_eq!(trials.accept(configuration(&section))?, [warning]);
    }
    Ok(())
}

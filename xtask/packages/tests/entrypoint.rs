//! Tests of the container's entry point, whose folders are below a temporary one and whose Orthanc prints its
//! configuration.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use real_orthanc::workspace::Plugin;
use serde_json::{Value, json};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The root of a container.
struct Container(tempfile::TempDir);

impl Container {
    fn new() -> Self {
        let container = Self(tempfile::tempdir().unwrap());
        let mut script = fs::read_to_string(sources().join("ci/docker/entrypoint")).unwrap();
        for folder in ["/etc/orthanc", "/run/secrets", "/usr/local/share/orthanc", "/usr/sbin"] {
            let inside = container.path(folder);
            fs::create_dir_all(&inside).unwrap();
            script = script.replace(folder, inside.to_str().unwrap());
        }
        container.file("/entrypoint", &script);
        container.file(
            "/usr/sbin/Orthanc",
            "#!/bin/sh\nfor folder; do :; done\njq --slurp add \"$folder\"/*.json\n",
        );
        let environment = fs::read_to_string(sources().join("ci/docker/environment.jq")).unwrap();
        container.file("/usr/local/share/orthanc/environment.jq", &environment);
        fs::create_dir(container.path("/tmp")).unwrap();
        fs::set_permissions(container.path("/tmp"), Permissions::from_mode(0o1777)).unwrap();
        // Another user runs the entry point.
        fs::set_permissions(container.0.path(), Permissions::from_mode(0o755)).unwrap();
        container
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, content: &str) -> &Self {
        fs::write(self.path(path), content).unwrap();
        fs::set_permissions(self.path(path), Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Starts the container as an unprivileged user. Returns the configuration of its Orthanc, or the error.
    fn start(&self, variables: &[(&str, &str)]) -> Result<Value, String> {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = Command::new(if is_root { "setpriv" } else { "env" });
        if is_root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        }
        let output = command
            .args(["/bin/sh".as_ref(), self.path("/entrypoint").as_os_str()])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.path("/tmp"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            return Ok(serde_json::from_str(&text(output.stdout)).unwrap());
        }
        Err(text(output.stderr))
    }
}

#[test]
fn secrets_are_options() {
    let container = Container::new();
    fs::create_dir(container.path("/run/secrets/kubernetes.io")).unwrap();
    container
        .file("/run/secrets/ORTHANC__AWS_S3_STORAGE__SECRET_KEY", "a\"b\\c=\n")
        .file("/run/secrets/ORTHANC__REGISTERED_USERS", "{\"demo\": \"demo\"}\r\n")
        .file("/run/secrets/database", "no newline")
        .file("/run/secrets/of-another-program", "\u{0}")
        .file("/run/secrets/orthanc.json", "{\"Name\": \"secret\"}")
        .file("/etc/orthanc/orthanc.json", "{\"DicomAet\": \"FILE\"}");
    let configuration = container
        .start(&[
            ("ORTHANC__AWS_S3_STORAGE__ACCESS_KEY", "key"),
            ("ORTHANC__POSTGRESQL__PASSWORD_SECRET", "database"),
        ])
        .unwrap();
    let expected = json!({
        "AuthenticationEnabled": true,
        "AwsS3Storage": { "AccessKey": "key", "SecretKey": "a\"b\\c=" },
        "DicomAet": "FILE",
        "IndexDirectory": "/var/lib/orthanc/db",
        "Name": "secret",
        "Plugins": ["/usr/share/orthanc/plugins"],
        "PostgreSQL": { "Password": "no newline" },
        "RegisteredUsers": { "demo": "demo" },
        "RemoteAccessAllowed": true,
        "StorageDirectory": "/var/lib/orthanc/db",
    });
    assert_eq!(configuration, expected);
}

#[test]
fn credentials_of_google_are_no_configuration() {
    let container = Container::new();
    let key = r#"{"type": "service_account", "private_key": "hidden"}"#;
    container
        .file("/run/secrets/service-account.json", key)
        .file("/etc/orthanc/user.json", r#"{"type": "authorized_user", "refresh_token": "hidden"}"#)
        .file("/etc/orthanc/orthanc.json", r#"{"Name": "kept"}"#);
    let configuration = container.start(&[]).unwrap();
    assert_eq!(configuration["Name"], "kept");
    assert!(!configuration.to_string().contains("hidden"), "{configuration}");
}

#[test]
fn passwords_are_strings() {
    let container = Container::new();
    for password in ["123456", "007", "98765432109876543210", "1e3", "null", "\"quoted\""] {
        container.file("/run/secrets/ORTHANC__AWS_S3_STORAGE__SECRET_KEY", password);
        container.file("/run/secrets/of-database", password);
        let variables = [
            ("ORTHANC__POSTGRESQL__PASSWORD_SECRET", "of-database"),
            ("ORTHANC__AZURE_BLOB_STORAGE__AZURE_KEY_VAULT__CLIENT_SECRET_SECRET", "of-database"),
        ];
        let configuration = container.start(&variables).unwrap();
        assert_eq!(configuration["AwsS3Storage"]["SecretKey"], password);
        assert_eq!(configuration["PostgreSQL"]["Password"], password);
        assert_eq!(configuration["AzureBlobStorage"]["AzureKeyVault"]["clientSecret"], password);
    }
}

#[test]
fn container_without_secrets_starts() {
    let container = Container::new();
    fs::remove_dir(container.path("/run/secrets")).unwrap();
    assert_eq!(container.start(&[("ORTHANC__HTTP_PORT", "8043")]).unwrap()["HttpPort"], 8043);
}

#[test]
fn unusable_secrets_stop_the_container() {
    const SECRET: &str = "ORTHANC__AWS_S3_STORAGE__SECRET_KEY";
    let container = Container::new();
    let refused = |variables: &[(&str, &str)], reason: &str| {
        let error = container.start(variables).unwrap_err();
        assert_eq!(error, format!("entrypoint: {reason}\n"));
        let copies = fs::read_dir(container.path("/tmp")).unwrap().count();
        assert_eq!(copies, 0, "copies of secrets are left");
    };
    let by_name = [("ORTHANC__AWS_S3_STORAGE__SECRET_KEY_SECRET", "s3")];
    refused(
        &by_name,
        "the secret that ORTHANC__AWS_S3_STORAGE__SECRET_KEY_SECRET names is not in /run/secrets",
    );
    container.file("/run/secrets/s3", "hidden");
    fs::set_permissions(container.path("/run/secrets/s3"), Permissions::from_mode(0o000)).unwrap();
    refused(&by_name, "the user of the container cannot read the secret s3");
    let file = format!("/run/secrets/{SECRET}");
    container.file(&file, "hidden");
    refused(&[(SECRET, "open")], &format!("{SECRET} is set twice, by a variable and by a secret"));
    fs::set_permissions(container.path(&file), Permissions::from_mode(0o000)).unwrap();
    refused(&[], &format!("the user of the container cannot read the secret {SECRET}"));
}

/// The usual variable of an option: `KEEP_FREE_MB` for `KeepFreeMB`.
fn variable(option: &str) -> String {
    let mut name = String::new();
    let mut after_capital = true;
    for letter in option.chars() {
        if letter.is_ascii_uppercase() && !after_capital {
            name.push('_');
        }
        after_capital = letter.is_ascii_uppercase();
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn each_option_has_a_variable() {
    let documentation = fs::read_to_string(sources().join("docs/configuration.md")).unwrap();
    let tables = documentation.lines().filter(|line| line.starts_with("| `"));
    let options: Vec<&str> = tables
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .filter(|option| *option != "HttpsCACertificates")
        .collect();
    let is_of_key_vault = |option: &&str| option.starts_with(|letter: char| letter.is_ascii_lowercase());
    let (of_key_vault, options): (Vec<&str>, Vec<&str>) = options.into_iter().partition(is_of_key_vault);
    assert!(options.len() > 40, "{options:?}");
    let container = Container::new();
    let prefix = "ORTHANC__AZURE_BLOB_STORAGE__STORAGE_ENCRYPTION__MASTER_KEY__AZURE_KEY_VAULT__";
    assert!(of_key_vault.contains(&"kid") && of_key_vault.contains(&"clientSecret"), "{of_key_vault:?}");
    for option in of_key_vault {
        let configuration = container.start(&[(&(prefix.to_owned() + &variable(option)), "value")]).unwrap();
        let pointer = format!("/AzureBlobStorage/StorageEncryption/MasterKey/AzureKeyVault/{option}");
        assert_eq!(configuration.pointer(&pointer), Some(&json!("value")), "{configuration}");
    }
    for section in Plugin::all().into_iter().map(Plugin::section) {
        let prefix = format!("ORTHANC__{}__", variable(section));
        let variables: Vec<(String, &str)> =
            options.iter().map(|option| (prefix.clone() + &variable(option), *option)).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, *value)).collect();
        let configuration = container.start(&variables).unwrap();
        for option in &options {
            assert_eq!(configuration[section][option], *option, "{configuration}");
        }
    }
}

/// Returns an example with variables: a file of the repository, or the blocks of a document.
fn examples() -> Vec<(String, String)> {
    let file = |path: &str| (path.to_owned(), fs::read_to_string(sources().join(path)).unwrap());
    let mut examples = vec![file("ci/docker/compose.yml"), file("ci/kubernetes/orthanc.yaml")];
    let (path, document) = file("docs/install.md");
    let blocks = document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    examples.extend(
        blocks.enumerate().map(|(number, block)| (format!("{path}, block {number}"), block.to_owned())),
    );
    assert_eq!(examples.len(), 4);
    examples
}

/// Returns the variables of an example, without quotes.
fn variables(example: &str) -> Vec<(&str, &str)> {
    let pairs = example.lines().filter_map(|line| line.trim().split_once(": "));
    let variables = pairs.filter(|(name, _)| name.starts_with("ORTHANC__"));
    variables.map(|(name, value)| (name, value.trim_matches(|letter| "'\"".contains(letter)))).collect()
}

#[test]
fn examples_set_documented_options() {
    let documentation = fs::read_to_string(sources().join("docs/configuration.md")).unwrap();
    for (example, text) in examples() {
        let container = Container::new();
        let variables = variables(&text);
        for (_, secret) in variables.iter().filter(|(name, _)| name.ends_with("_SECRET")) {
            // Docker Compose lists it.
            assert!(text.contains(&format!("\n  {secret}: {{ file: ./{secret} }}")), "{example}: {secret}");
            container.file(&format!("/run/secrets/{secret}"), "content");
        }
        let section = container.start(&variables).unwrap()["AwsS3Storage"].take();
        let section = section.as_object().unwrap();
        assert!(section.len() >= 4, "{example}: {section:?}");
        for (option, value) in section {
            let suboptions = value.as_object().into_iter().flatten().map(|(option, _)| option);
            for option in suboptions.chain([option]) {
                assert!(documentation.contains(&format!("`{option}`")), "{example}: {option}");
            }
        }
        if let Some(encryption) = section.get("StorageEncryption") {
            assert!(
                encryption["MasterKey"].is_array() && encryption["Format"] == "A2",
                "{example}: {encryption}"
            );
        }
    }
}

/// The names that the image `orthancteam/orthanc` does not derive from their words, as its published sources list them.
#[test]
fn variables_of_the_other_image_mean_the_same() {
    let names = [
        ("CASE_SENSITIVE_PN", "/CaseSensitivePN"),
        ("HTTPS_CA_CERTIFICATES", "/HttpsCACertificates"),
        ("STORE_MD5_FOR_ATTACHMENTS", "/StoreMD5ForAttachments"),
        ("POSTGRESQL__ENABLE_INDEX", "/PostgreSQL/EnableIndex"),
        ("POSTGRESQL__ENABLE_SSL", "/PostgreSQL/EnableSsl"),
        ("POSTGRESQL__PASSWORD", "/PostgreSQL/Password"),
        // One that follows the rule.
        ("AWS_S3_STORAGE__STORAGE_ENCRYPTION__MASTER_KEY", "/AwsS3Storage/StorageEncryption/MasterKey"),
    ];
    let container = Container::new();
    for (name, pointer) in names {
        let configuration = container.start(&[(&format!("ORTHANC__{name}"), "value")]).unwrap();
        assert_eq!(configuration.pointer(pointer), Some(&json!("value")), "{configuration}");
    }
}

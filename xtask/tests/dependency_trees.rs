//! What is linked into each plugin, as cargo resolves it for that plugin alone.

use std::collections::BTreeSet;
use std::process::Command;

/// Plugins with the cloud that each of them speaks to, as `object_store` calls it.
const PLUGINS: [(&str, &str); 3] = [
    ("orthanc-aws-s3-storage", "aws-base"),
    ("orthanc-azure-blob-storage", "azure-base"),
    ("orthanc-google-cloud-storage", "gcp-base"),
];

/// Lines of `cargo tree`, without what only builds or tests the plugin.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", package, "--edges", "normal,features", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: BTreeSet<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(lines.len() > 100, "a short tree: {lines:?}");
    lines
}

fn packages(tree: &BTreeSet<String>) -> BTreeSet<&str> {
    tree.iter().filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn each_plugin_links_its_own_cloud_and_no_other() {
    for (package, own) in PLUGINS {
        let tree = tree(package);
        let clouds: Vec<_> = PLUGINS
            .iter()
            .map(|(_, cloud)| *cloud)
            .filter(|cloud| {
                tree.iter().any(|line| line.starts_with(&format!("object_store feature \"{cloud}\"")))
            })
            .collect();
        assert_eq!(clouds, [own], "{package}");
        let amazon =
            packages(&tree).iter().any(|name| name.starts_with("aws-") && !name.starts_with("aws-lc"));
        assert_eq!(amazon, own == "aws-base", "{package}: the AWS SDK");
    }
}

#[test]
fn no_plugin_links_grpc_protobuf_or_another_cryptography() {
    for (package, _) in PLUGINS {
        let tree = tree(package);
        let unwanted =
            ["tonic", "prost", "protobuf", "grpcio", "ring", "openssl", "openssl-sys", "native-tls"];
        let found: Vec<_> = packages(&tree).into_iter().filter(|name| unwanted.contains(name)).collect();
        assert!(found.is_empty(), "{package}: {found:?}");
    }
}

#[test]
fn tests_and_tools_are_not_linked() {
    for (package, _) in PLUGINS {
        let tree = tree(package);
        for tool in ["test-bucket", "test-host", "end-to-end", "s3s", "anyhow"] {
            assert!(!packages(&tree).contains(tool), "{package}: {tool}");
        }
    }
}

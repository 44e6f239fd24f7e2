//! Tests of the alert rules and the dashboard, with the tools of Prometheus.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(sources().join(path)).unwrap()
}

fn promtool(arguments: &[&str]) -> Result<(), String> {
    let folder = sources().join("ci/docker/prometheus");
    let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let shown = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    if output.status.success() { Ok(()) } else { Err(shown) }
}

fn dashboard() -> Value {
    serde_json::from_str(&text("ci/docker/grafana/dashboards/orthanc-object-storage.json")).unwrap()
}

/// The queries of all panels, with example values for the variables of Grafana.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let query = |target: &Value| {
        let query = target["expr"].as_str().unwrap();
        query.replace("$__rate_interval", "5m").replace("$instance", ".*")
    };
    targets.map(query).collect()
}

/// Lets Prometheus parse queries, as rules.
fn check_queries(queries: &[String]) -> Result<(), String> {
    let rule =
        |(number, query): (usize, &String)| json!({"record": format!("query_{number}"), "expr": query});
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    // JSON is YAML.
    fs::write(file.path(), json!({"groups": [{"name": "queries", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()])
}

/// The names of the plugin's metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_of_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let rest = text.split("object_storage_").skip(1);
    rest.map(|rest| rest.split(|letter| !is_of_name(letter)).next().unwrap().to_owned()).collect()
}

#[test]
fn alerts_fire_when_they_should() {
    promtool(&["check", "config", "prometheus.yml"]).unwrap();
    promtool(&["test", "rules", "alerts-tests.yml"]).unwrap();
    let other = tempfile::tempdir().unwrap();
    let wrong =
        text("ci/docker/prometheus/alerts.yml").replace("quarantined_files > 0", "quarantined_files > 1");
    fs::write(other.path().join("alerts.yml"), wrong).unwrap();
    let tests = other.path().join("alerts-tests.yml");
    fs::write(&tests, text("ci/docker/prometheus/alerts-tests.yml")).unwrap();
    let failure = promtool(&["test", "rules", tests.to_str().unwrap()]).unwrap_err();
    assert!(failure.contains("ObjectStorageQuarantined"), "{failure}");
}

#[test]
fn each_alert_is_tested_and_documented() {
    let rules = text("ci/docker/prometheus/alerts.yml");
    let tests = text("ci/docker/prometheus/alerts-tests.yml");
    let page = text("docs/monitoring.md");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(alert), "{alert} is not tested");
    }
    let section = page.split("### Alerts\n").nth(1).unwrap().split("\n##").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), alerts);
}

#[test]
fn prometheus_uses_its_own_clock() {
    for path in ["ci/docker/prometheus/prometheus.yml", "docs/monitoring.md"] {
        assert!(text(path).contains("\n    honor_timestamps: false\n"), "{path}");
    }
}

#[test]
fn queries_name_documented_metrics() {
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{queries:?}");
    check_queries(&queries).unwrap();
    let failure = check_queries(&["rate(object_storage_retries[5m)".to_owned()]).unwrap_err();
    assert!(failure.contains("parse error"), "{failure}");

    let page = text("docs/rest-api.md");
    let page = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let each = ["create", "read", "read_range", "remove"].map(|request| page.replace("{request}", request));
    let documented = metrics(&each.concat());
    let named = [queries.join(" "), text("ci/docker/prometheus/alerts.yml"), text("docs/monitoring.md")];
    let named = metrics(&named.concat());
    assert!(named.len() > 30, "{named:?}");
    let unknown: Vec<_> = named.difference(&documented).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn panels_have_units_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut cells = BTreeSet::new();
    for panel in panels {
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["unit"].is_string() && defaults["noValue"].is_string(), "{panel}");
        assert!(panel["title"].is_string() && panel["description"].is_string(), "{panel}");
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + width <= 24, "{panel}");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{panel}");
        }
    }
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn compose_mounts_what_is_there() {
    let compose = text("ci/docker/compose.yml");
    let mounts: Vec<_> = compose
        .split(['"', ' ', '\n'])
        .filter_map(|word| word.strip_prefix("./")?.split(':').next())
        .collect();
    assert_eq!(mounts, ["prometheus", "grafana/provisioning", "grafana/dashboards"]);
    for mount in mounts {
        assert!(sources().join("ci/docker").join(mount).is_dir(), "{mount}");
    }
    // The user of the sample may read the metrics.
    let prometheus = text("ci/docker/prometheus/prometheus.yml");
    let (user, password) = ("my-user", "my-password");
    assert!(
        compose.contains(&format!("ORTHANC__REGISTERED_USERS: '{{\"{user}\": \"{password}\"}}'")),
        "{compose}"
    );
    assert!(prometheus.contains(&format!("username: {user}\n      password: {password}\n")), "{prometheus}");
}

//! The facts that a plugin's `Cargo.toml` states.

use std::fs;
use std::path::Path;

use toml::Table;

/// A plugin as its `Cargo.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The cargo package, which is also the name of its folder: `aws-s3`.
    pub package: String,
    /// The library target: `OrthancAwsS3Storage`.
    pub library: String,
    /// The name in Orthanc's list of plugins: `AWS S3 Storage`.
    pub name: String,
    /// The section of Orthanc's configuration: `AwsS3Storage`.
    pub section: String,
    /// The cloud's name for people: `AWS S3`.
    pub title: String,
    /// The name of its packages: `orthanc-aws-s3-storage`.
    pub distribution: String,
    /// The file of its sample configuration: `aws-s3-storage.json`.
    pub sample: String,
}

impl Facts {
    /// Reads `Cargo.toml` in a plugin's folder.
    ///
    /// # Errors
    ///
    /// Returns the file and the reason if the file is unreadable, not TOML, or lacks a fact.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("Cargo.toml");
        let parsed = fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|manifest| Self::parse(&manifest));
        parsed.map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn parse(manifest: &str) -> Result<Self, String> {
        let manifest: Table = manifest.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let string = |table: &str, key: &str| {
            let mut tables = table.split('.');
            let first = tables.next().and_then(|name| manifest.get(name));
            let found = tables.try_fold(first?, |table, name| table.get(name))?.get(key)?;
            found.as_str().filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let required = |table: &str, key: &str| {
            string(table, key)
                .ok_or_else(|| format!("`{key}` in [{table}] must be a string that is not empty"))
        };
        let fact = |key: &str| required("package.metadata.orthanc", key);
        Ok(Self {
            package: required("package", "name")?,
            library: required("lib", "name")?,
            name: fact("name")?,
            section: fact("section")?,
            title: fact("title")?,
            distribution: fact("distribution")?,
            sample: fact("sample")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        [package]
        name = "p"
        [lib]
        name = "L"
        [package.metadata.orthanc]
        name = "N"
        section = "S"
        title = "T"
        distribution = "D"
        sample = "s.json"
    "#;

    #[test]
    fn facts_are_read() {
        let facts = Facts::parse(MANIFEST).unwrap();
        let Facts { package, library, name, section, title, distribution, sample } = &facts;
        let all = [package, library, name, section, title, distribution, sample];
        assert_eq!(all, ["p", "L", "N", "S", "T", "D", "s.json"]);
    }

    #[test]
    fn missing_fact_is_named() {
        let facts = Facts::parse(&MANIFEST.replace(r#"title = "T""#, r#"title = """#));
        let problem = "`title` in [package.metadata.orthanc] must be a string that is not empty";
        assert_eq!(facts, Err(problem.to_owned()));
        let error = Facts::read(Path::new("/nowhere")).unwrap_err();
        assert!(error.starts_with("/nowhere/Cargo.toml: "), "{error}");
    }
}

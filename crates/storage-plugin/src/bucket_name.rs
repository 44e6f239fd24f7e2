//! Names of buckets and containers.

use crate::config::{ConfigError, Section};

/// Reads `option`, the name of a bucket, without white space around it.
///
/// # Errors
///
/// Returns an error with what to write instead if the value is a URL or an ARN, or has a slash. It quotes only what can be
/// the name of a bucket, since the value may be a key or a signed URL.
pub fn bucket_name(section: &mut Section<'_>, option: &'static str) -> Result<String, ConfigError> {
    let name = section.required(option)?.trim().to_owned();
    let mistake = if name.contains("://") {
        "a URL"
    } else if name.starts_with("arn:") {
        "an ARN; an access point is named by its alias"
    } else if name.contains('/') {
        "a path; RootPath names a folder in the bucket"
    } else if name.is_empty() {
        return Err(section.error(option, "must not be empty"));
    } else {
        return Ok(name);
    };
    let advice = intended(&name).map_or_else(String::new, |(bucket, folder)| {
        let root = folder.map_or_else(String::new, |folder| format!(", \"RootPath\": \"{folder}\""));
        format!("; write \"{option}\": \"{bucket}\"{root}")
    });
    Err(section.error(option, format!("must be a name alone, not {mistake}{advice}")))
}

/// Returns the bucket and the folder in `s3://bucket/folder`, `arn:aws:s3:::bucket/folder` or `bucket/folder`.
fn intended(text: &str) -> Option<(&str, Option<&str>)> {
    let path = match (text.split_once("://"), text.split_once(":::")) {
        (Some(("s3" | "s3a" | "gs", path)), _) | (None, Some((_, path))) => path,
        (None, None) if !text.starts_with("arn:") => text,
        _ => return None,
    };
    let (bucket, rest) = path.split_once('/').unwrap_or((path, ""));
    let folder = rest.trim_matches('/');
    let is_plain = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._/".contains(&byte))
    };
    let fits = (3..=63).contains(&bucket.len()) && is_plain(bucket) && is_plain(folder) && folder.len() < 64;
    fits.then_some((bucket, Some(folder).filter(|folder| !folder.is_empty())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(name: &str) -> Result<String, String> {
        let Value::Object(configuration) = json!({"S": {"BucketName": name}}) else { unreachable!() };
        let mut section = Section::find(&configuration, "S").unwrap().unwrap();
        bucket_name(&mut section, "BucketName").map_err(|error| error.to_string())
    }

    #[test]
    fn name_is_accepted() {
        for name in ["images", "my.bucket_1", "point-s3alias", " images\n", "arn"] {
            assert_eq!(read(name).as_deref(), Ok(name.trim()));
        }
    }

    #[test]
    fn other_values_are_refused_with_what_to_write() {
        for (value, expected) in [
            ("s3://images", "a URL; write \"BucketName\": \"images\""),
            ("gs://images/", "a URL; write \"BucketName\": \"images\""),
            ("s3://images/ct/2026/", "a URL; write \"BucketName\": \"images\", \"RootPath\": \"ct/2026\""),
            ("https://images.s3.amazonaws.com", "a URL"),
            ("https://host/images?sig=hunter2", "a URL"),
            (
                "arn:aws:s3:::images",
                "an ARN; an access point is named by its alias; write \"BucketName\": \"images\"",
            ),
            (
                "arn:aws:s3:eu-west-1:123456789012:accesspoint/a",
                "an ARN; an access point is named by its alias",
            ),
            (
                "images/ct",
                "a path; RootPath names a folder in the bucket; write \"BucketName\": \"images\", \"RootPath\": \"ct\"",
            ),
            ("hunter2K7/Bpx+RfiCY", "a path; RootPath names a folder in the bucket"),
            ("/", "a path; RootPath names a folder in the bucket"),
        ] {
            let expected = format!("`S.BucketName` must be a name alone, not {expected}");
            assert_eq!(read(value), Err(expected));
        }
        assert_eq!(read(" "), Err("`S.BucketName` must not be empty".to_owned()));
    }
}

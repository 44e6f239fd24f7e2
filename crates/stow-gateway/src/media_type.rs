//! `Content-Type` and `Accept`, with the deviations of real clients.
//!
//! The crates `mime` and `mediatype` refuse `type=application/dicom` without quotation marks, which clients
//! send: `/` is not allowed in an unquoted value.

use crate::failure::Rejection;

/// Maximum length of a boundary. RFC 2046, 5.1.1 allows 70 characters, but Orthanc's own client sends 73.
const MAX_BOUNDARY: usize = 200;

/// A media type with its parameters, as a header has it.
#[derive(Debug)]
struct MediaType {
    /// Type and subtype, in lower case.
    essence: String,
    /// Names in lower case, and values without quotation marks, in order.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn parse(text: &str) -> Self {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let mut parameters = Vec::new();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, remaining) = parameter_value(after);
            // Skips parameters without a value.
            let name = name.rsplit(';').next().unwrap_or_default();
            parameters.push((name.trim().to_ascii_lowercase(), value));
            rest = remaining;
        }
        Self { essence: essence.trim().to_ascii_lowercase(), parameters }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Splits `value; other=…` into the value and the rest.
fn parameter_value(text: &str) -> (String, &str) {
    let trimmed = text.trim_start();
    let Some(quoted) = trimmed.strip_prefix('"') else {
        let (value, rest) = trimmed.split_once(';').unwrap_or((trimmed, ""));
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let rest = &quoted[at + 1..];
                return (value, rest.split_once(';').map_or("", |(_, rest)| rest));
            }
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Returns the boundary of a request's `Content-Type`.
pub(crate) fn boundary(content_type: &str) -> Result<String, Rejection> {
    let media_type = MediaType::parse(content_type);
    // RFC 2387 requires the parameter, but without it, parts still have types of their own.
    let root = media_type.parameter("type").unwrap_or("application/dicom");
    if media_type.essence != "multipart/related" || !root.eq_ignore_ascii_case("application/dicom") {
        return Err(Rejection::MediaType);
    }
    let boundary = media_type.parameter("boundary").unwrap_or_default();
    let printable = boundary.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY || boundary.ends_with(' ') || !printable {
        return Err(Rejection::Boundary);
    }
    Ok(boundary.to_owned())
}

/// Whether a part with this `Content-Type` can be a DICOM file. `application/octet-stream` says nothing about
/// the content, which is checked anyway.
pub(crate) fn is_dicom(content_type: &str) -> bool {
    matches!(
        MediaType::parse(content_type).essence.as_str(),
        "application/dicom" | "application/octet-stream"
    )
}

/// The representation of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// DICOM JSON Model (PS3.18 F.2).
    Json,
    /// Native DICOM Model (PS3.19 A.1).
    Xml,
}

impl Format {
    /// Chooses the format for a request's `Accept` header. A request is not refused because of it: the
    /// answer is JSON for whatever is neither.
    pub fn for_accept(accept: Option<&str>) -> Self {
        let mut json = 0.0_f32;
        let mut xml = 0.0_f32;
        for range in accept.unwrap_or_default().split(',').map(MediaType::parse) {
            let quality = range.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0_f32);
            match range.essence.as_str() {
                "application/dicom+xml" => xml = xml.max(quality),
                "application/dicom+json" | "application/json" | "application/*" | "*/*" => {
                    json = json.max(quality);
                }
                _ => {}
            }
        }
        if xml > json { Self::Xml } else { Self::Json }
    }

    /// The exact value of `Content-Type`: a widespread client compares it literally.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/dicom+json",
            Self::Xml => "application/dicom+xml",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, boundary, is_dicom};
    use crate::failure::Rejection;

    #[test]
    fn boundaries() {
        for content_type in [
            "multipart/related; type=\"application/dicom\"; boundary=\"a b\"",
            "multipart/related; type=application/dicom; boundary=a b",
            "Multipart/Related;boundary=\"a b\";TYPE=Application/DICOM",
            "multipart/related; boundary = a b ; start=\"<a;b=c>\"; type=\"application/dicom\";",
            "multipart/related; start=\"a\\\"; boundary=x\"; boundary=\"\\a b\"",
            "multipart/related; flag; boundary=a b",
        ] {
            assert_eq!(boundary(content_type).as_deref(), Ok("a b"), "{content_type}");
        }
        // Of Orthanc's client.
        let orthanc = "8875c97e-5dd5-48bf-885d-9a91595c36bf-8875c97e-5dd5-48bf-885d-9a91595c36bf";
        let content_type = format!("multipart/related; type=\"application/dicom\"; boundary={orthanc}");
        assert_eq!(boundary(&content_type).as_deref(), Ok(orthanc));
        for content_type in [
            "",
            "application/dicom",
            "multipart/form-data; boundary=a",
            "multipart/related; type=\"application/dicom+json\"; boundary=a",
            "multipart/relatedx; boundary=a",
        ] {
            assert_eq!(boundary(content_type), Err(Rejection::MediaType), "{content_type}");
        }
        let long = "a".repeat(201);
        for parameters in ["", "; boundary=", "; boundary=\"a \"", "; boundary=\"a\rb\"", "; boundary=\u{e9}"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("; boundary={long}")])
        {
            assert_eq!(boundary(&format!("multipart/related{parameters}")), Err(Rejection::Boundary));
        }
        assert_eq!(boundary(&format!("multipart/related; boundary={}", &long[1..])).unwrap(), long[1..]);
    }

    #[test]
    fn types_of_parts() {
        assert!(is_dicom("application/dicom"));
        assert!(is_dicom("Application/Dicom; transfer-syntax=1.2.840.10008.1.2.1"));
        assert!(is_dicom("application/octet-stream"));
        assert!(!is_dicom("application/dicom+json"));
        assert!(!is_dicom("image/jpeg"));
    }

    #[test]
    fn formats() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("application/json"),
            Some("application/dicom+json"),
            Some("text/html"),
            Some("application/dicom+xml, application/dicom+json"),
            Some("application/dicom+xml;q=0.5, */*;q=0.8"),
        ] {
            assert_eq!(Format::for_accept(accept), Format::Json, "{accept:?}");
        }
        for accept in ["application/dicom+xml", "Application/DICOM+XML; q=0.9, application/dicom+json;q=0.1"]
        {
            assert_eq!(Format::for_accept(Some(accept)), Format::Xml, "{accept}");
        }
    }
}

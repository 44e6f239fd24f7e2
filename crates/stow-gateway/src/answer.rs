//! The answer to a request: the Store Instances Response Module (PS3.18, table I.1-1) as JSON or XML.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, Event};
use serde_json::{Map, Value as Json, json};

use crate::failure::Rejection;
use crate::media_type::Format;
use crate::receiver::{Outcome, Report};
use crate::sink::Instance;
use crate::uid::Uid;

/// Seconds after which a client may repeat a request that failed because the storage is unavailable.
const RETRY_AFTER: u32 = 30;

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The exact value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn text(status: u16, message: &str) -> Self {
        Self { status, content_type: "text/plain", retry_after: None, body: format!("{message}\n").into() }
    }
}

impl From<&Rejection> for Answer {
    fn from(rejection: &Rejection) -> Self {
        Self::text(rejection.status(), &rejection.to_string())
    }
}

impl Report {
    /// The HTTP status.
    ///
    /// * 200 if everything is stored,
    /// * 202 if something is stored and something is not,
    /// * otherwise 400 for a malformed or empty body, 503 if the storage was unavailable for one of the
    ///   instances, or 409.
    pub fn status(&self) -> u16 {
        let stored = self.stored();
        let complete = self.malformed.is_none() && stored == self.outcomes.len();
        match (stored, complete) {
            (1.., true) => 200,
            (1.., false) => 202,
            _ if self.malformed.is_some() || self.outcomes.is_empty() => 400,
            _ if self.failures().any(|(_, failure)| failure.is_unavailable()) => 503,
            _ => 409,
        }
    }

    /// The answer. Without a `wado_url`, it contains no Retrieve URL.
    pub fn answer(&self, format: Format, wado_url: &str) -> Answer {
        let status = self.status();
        if status == 400 {
            let message =
                self.malformed.map_or_else(|| "the body has no parts".to_owned(), |error| error.to_string());
            return Answer::text(status, &message);
        }
        let data_set = data_set(self, wado_url.trim_end_matches('/'));
        let body = match format {
            Format::Json => json(data_set).to_string().into_bytes(),
            Format::Xml => xml(&data_set),
        };
        let retry_after = (status == 503).then_some(RETRY_AFTER);
        Answer { status, content_type: format.content_type(), retry_after, body }
    }
}

/// The attributes of an answer.
#[derive(Debug, Clone, Copy)]
enum Attribute {
    ReferencedSopClassUid,
    ReferencedSopInstanceUid,
    RetrieveUrl,
    FailureReason,
    FailedSopSequence,
    ReferencedSopSequence,
    OtherFailuresSequence,
}

impl Attribute {
    /// Tag, VR and keyword (PS3.6).
    fn definition(self) -> [&'static str; 3] {
        match self {
            Self::ReferencedSopClassUid => ["00081150", "UI", "ReferencedSOPClassUID"],
            Self::ReferencedSopInstanceUid => ["00081155", "UI", "ReferencedSOPInstanceUID"],
            Self::RetrieveUrl => ["00081190", "UR", "RetrieveURL"],
            Self::FailureReason => ["00081197", "US", "FailureReason"],
            Self::FailedSopSequence => ["00081198", "SQ", "FailedSOPSequence"],
            Self::ReferencedSopSequence => ["00081199", "SQ", "ReferencedSOPSequence"],
            Self::OtherFailuresSequence => ["0008119A", "SQ", "OtherFailuresSequence"],
        }
    }
}

#[derive(Debug)]
enum Value {
    Text(String),
    Number(u16),
    Items(Vec<DataSet>),
}

/// Attributes in ascending order of tags.
type DataSet = Vec<(Attribute, Value)>;

fn data_set(report: &Report, wado_url: &str) -> DataSet {
    let mut study: Option<&Uid> = None;
    let mut one_study = true;
    let mut stored = Vec::new();
    let mut failed = Vec::new();
    let mut other = Vec::new();
    for outcome in &report.outcomes {
        match outcome {
            Outcome::Stored(instance) => {
                one_study &= study.get_or_insert(&instance.study) == &&instance.study;
                let mut item = sop(&instance.sop_class, &instance.sop_instance);
                if !wado_url.is_empty() {
                    item.push((Attribute::RetrieveUrl, Value::Text(instance_url(wado_url, instance))));
                }
                stored.push(item);
            }
            Outcome::Failed { reference, failure } => {
                let reason = (Attribute::FailureReason, Value::Number(failure.reason()));
                match reference {
                    Some(reference) => {
                        let mut item = sop(&reference.sop_class, &reference.sop_instance);
                        item.push(reason);
                        failed.push(item);
                    }
                    None => other.push(vec![reason]),
                }
            }
        }
    }
    let mut data_set = DataSet::new();
    if let Some(study) = study.filter(|_| one_study && !wado_url.is_empty()) {
        data_set.push((Attribute::RetrieveUrl, Value::Text(format!("{wado_url}/studies/{study}"))));
    }
    for (attribute, items) in [
        (Attribute::FailedSopSequence, failed),
        (Attribute::ReferencedSopSequence, stored),
        (Attribute::OtherFailuresSequence, other),
    ] {
        if !items.is_empty() {
            data_set.push((attribute, Value::Items(items)));
        }
    }
    data_set
}

fn sop(class: &Uid, instance: &Uid) -> DataSet {
    vec![
        (Attribute::ReferencedSopClassUid, Value::Text(class.to_string())),
        (Attribute::ReferencedSopInstanceUid, Value::Text(instance.to_string())),
    ]
}

fn instance_url(wado_url: &str, instance: &Instance) -> String {
    let Instance { study, series, sop_instance, .. } = instance;
    format!("{wado_url}/studies/{study}/series/{series}/instances/{sop_instance}")
}

/// The DICOM JSON Model (PS3.18 F.2).
fn json(data_set: DataSet) -> Json {
    let attributes = data_set.into_iter().map(|(attribute, value)| {
        let [tag, vr, _] = attribute.definition();
        let values = match value {
            Value::Text(text) => json!([text]),
            Value::Number(number) => json!([number]),
            Value::Items(items) => items.into_iter().map(json).collect(),
        };
        let mut object = Map::new();
        object.insert("vr".to_owned(), vr.into());
        object.insert("Value".to_owned(), values);
        (tag.to_owned(), Json::Object(object))
    });
    Json::Object(attributes.collect())
}

/// The Native DICOM Model (PS3.19 A.1).
fn xml(data_set: &DataSet) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let written =
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None))).and_then(|()| {
            writer
                .create_element("NativeDicomModel")
                .with_attribute(("xmlns", "http://dicom.nema.org/PS3.19/models/NativeDICOM"))
                .with_attribute(("xml:space", "preserve"))
                .write_inner_content(|writer| xml_attributes(writer, data_set))
                .map(drop)
        });
    // Memory accepts everything.
    debug_assert!(written.is_ok());
    writer.into_inner()
}

fn xml_attributes(writer: &mut Writer<Vec<u8>>, data_set: &DataSet) -> io::Result<()> {
    for (attribute, value) in data_set {
        let [tag, vr, keyword] = attribute.definition();
        writer
            .create_element("DicomAttribute")
            .with_attributes([("tag", tag), ("vr", vr), ("keyword", keyword)])
            .write_inner_content(|writer| match value {
                Value::Text(text) => xml_value(writer, text),
                Value::Number(number) => xml_value(writer, &number.to_string()),
                Value::Items(items) => (1..).zip(items).try_for_each(|(number, item): (usize, _)| {
                    writer
                        .create_element("Item")
                        .with_attribute(("number", number.to_string().as_str()))
                        .write_inner_content(|writer| xml_attributes(writer, item))
                        .map(drop)
                }),
            })?;
    }
    Ok(())
}

fn xml_value(writer: &mut Writer<Vec<u8>>, text: &str) -> io::Result<()> {
    writer
        .create_element("Value")
        .with_attribute(("number", "1"))
        .write_text_content(quick_xml::events::BytesText::new(text))
        .map(drop)
}

#[cfg(test)]
mod tests;

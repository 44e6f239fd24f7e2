//! Lists of objects, page by page: the XML documents of S3 and Google, and of Azure.
//!
//! `object_store` also reads them, but fails if a single name in a page is not in its normal form, and changes names that
//! begin or end with a slash.
//!
//! - S3: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>, which Google's XML interface has too
//! - Azure: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>

use std::time::SystemTime;

use chrono::DateTime;
use http::HeaderMap;
use http::header::DATE;
use object_store::client::{HttpError, HttpResponse};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::client::protocol;
use crate::document::small_body;
use crate::error_body::character;

/// A request for a page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// The beginning of the objects' names.
    pub prefix: String,
    /// Whether to list objects whose names continue with a slash.
    pub folders: bool,
    /// Where the page begins; `None` for the first one.
    pub next: Option<NextPage>,
    /// Maximum number of objects.
    pub limit: usize,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextPage {
    /// At the server's mark.
    Token(String),
    /// After the object with this name. Servers that only know S3's first list have no marks.
    After(String),
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The name, unchanged.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// When the object was stored, by the server's clock.
    pub modified: SystemTime,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ListedObject>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<NextPage>,
    /// The server's time (`Date`), if it sent one.
    pub server_time: Option<SystemTime>,
}

impl ListRequest {
    /// Returns the query of the request to S3 and Google.
    pub fn s3_query(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut pairs = Vec::new();
        match &self.next {
            Some(NextPage::Token(token)) => pairs.push(format!("continuation-token={}", encoded(token))),
            // Servers that know only the first list take `marker`, and ignore the other.
            Some(NextPage::After(name)) => pairs.push(format!("marker={}", encoded(name))),
            None => {}
        }
        if !self.folders {
            pairs.push("delimiter=%2F".to_owned());
        }
        // XML has no control characters.
        pairs.push("encoding-type=url".to_owned());
        pairs.push("list-type=2".to_owned());
        pairs.push(format!("max-keys={}", self.limit));
        pairs.push(format!("prefix={}", encoded(&self.prefix)));
        if let Some(NextPage::After(name)) = &self.next {
            pairs.push(format!("start-after={}", encoded(name)));
        }
        pairs.join("&")
    }

    /// Returns the query of the request to Azure.
    pub fn azure_query(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut query = format!("restype=container&comp=list&maxresults={}", self.limit);
        if let Some(NextPage::Token(token) | NextPage::After(token)) = &self.next {
            query = format!("{query}&marker={}", encoded(token));
        }
        if !self.folders {
            query.push_str("&delimiter=%2F");
        }
        if !self.prefix.is_empty() {
            query = format!("{query}&prefix={}", encoded(&self.prefix));
        }
        query
    }
}

impl ListPage {
    /// Reads the answer to a [`ListRequest`].
    ///
    /// # Errors
    ///
    /// Fails if the connection breaks, or the answer is not a complete list.
    pub async fn read(response: HttpResponse) -> Result<Self, HttpError> {
        let server_time = date(response.headers());
        let body = small_body(response).await?;
        let page = Document::read(&body).and_then(Document::into_page);
        page.map(|page| Self { server_time, ..page })
            .ok_or_else(|| protocol("the answer is not a list of objects"))
    }
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// An element of a document whose text is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Size,
    Modified,
    ResourceType,
    IsTruncated,
    Token,
    Encoding,
}

/// What a document has said so far.
#[derive(Default)]
struct Document {
    objects: Vec<ListedObject>,
    is_azure: bool,
    is_truncated: Option<bool>,
    /// The element exists, and may be empty.
    token: Option<String>,
    /// Whether names are encoded as in URLs.
    encoded: bool,
}

/// The object that is being read.
#[derive(Default)]
struct Entry {
    name: Option<String>,
    /// Whether Azure says that this name is encoded.
    encoded: bool,
    size: Option<u64>,
    modified: Option<SystemTime>,
    is_folder: bool,
}

impl Document {
    /// Reads a document to its end; `None` if it is something else, or incomplete.
    fn read(body: &[u8]) -> Option<Self> {
        let mut document = Self::default();
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut reader = Reader::from_reader(body);
        reader.config_mut().expand_empty_elements = true;
        let mut depth = 0_usize;
        let mut entry: Option<Entry> = None;
        let mut field = None;
        let mut text = String::new();
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => {
                    depth += 1;
                    text.clear();
                    field = None;
                    match (depth, start.local_name().as_ref()) {
                        (1, b"ListBucketResult") => {}
                        (1, b"EnumerationResults") => document.is_azure = true,
                        (1, _) => return None,
                        (_, b"Contents" | b"Blob") => entry = Some(Entry::default()),
                        (_, name) => field = of_element(name, entry.is_some()),
                    }
                    if let (Some(Field::Name), Some(entry)) = (field, &mut entry) {
                        entry.encoded = says_encoded(&start);
                    }
                }
                Event::Text(part) if field.is_some() => text.push_str(&part.decode().ok()?),
                Event::CData(part) if field.is_some() => text.push_str(&part.decode().ok()?),
                Event::GeneralRef(reference) if field.is_some() => text.push(character(&reference)?),
                Event::End(end) => {
                    depth = depth.checked_sub(1)?;
                    if let Some(field) = field.take() {
                        document.set(field, std::mem::take(&mut text), entry.as_mut())?;
                    } else if matches!(end.local_name().as_ref(), b"Contents" | b"Blob") {
                        document.objects.extend(entry.take()?.into_object()?);
                    }
                    if depth == 0 {
                        return Some(document);
                    }
                }
                Event::Eof => return None,
                _ => {}
            }
        }
    }

    /// Sets what an element says; `None` if it cannot be understood.
    fn set(&mut self, field: Field, text: String, entry: Option<&mut Entry>) -> Option<()> {
        match (field, entry) {
            (Field::Name, Some(entry)) => entry.name = Some(text),
            (Field::Size, Some(entry)) => entry.size = Some(text.trim().parse().ok()?),
            (Field::Modified, Some(entry)) => entry.modified = Some(time(text.trim())?),
            (Field::ResourceType, Some(entry)) => entry.is_folder = text.trim() == "directory",
            (Field::IsTruncated, _) => self.is_truncated = Some(text.trim().parse().ok()?),
            (Field::Token, _) => self.token = Some(text),
            (Field::Encoding, _) => self.encoded = text.trim().eq_ignore_ascii_case("url"),
            _ => {}
        }
        Some(())
    }

    /// Returns the page; `None` if the document does not say whether it is the last one.
    fn into_page(self) -> Option<ListPage> {
        let Self { mut objects, is_azure, is_truncated, token, encoded } = self;
        // The element may be after the names.
        if encoded {
            for object in &mut objects {
                object.name = decode(&object.name.replace('+', " "))?;
            }
        }
        let token = if is_azure { Some(token?) } else { token };
        let token = token.filter(|token| !token.is_empty()).map(NextPage::Token);
        let next = match (is_azure, is_truncated) {
            (true, _) => token,
            (false, Some(false)) => None,
            (false, Some(true)) => {
                let last = objects.last().map(|object| NextPage::After(object.name.clone()));
                Some(token.or(last)?)
            }
            (false, None) => return None,
        };
        Some(ListPage { objects, next, server_time: None })
    }
}

impl Entry {
    /// Returns the object, or nothing for a folder of Azure's hierarchical namespace. The outer `None` is an incomplete
    /// entry.
    #[expect(clippy::option_option, reason = "the inner one is a folder")]
    fn into_object(self) -> Option<Option<ListedObject>> {
        let Self { name, encoded, size, modified, is_folder } = self;
        if is_folder {
            return Some(None);
        }
        let name = name.filter(|name| !name.is_empty())?;
        let name = if encoded { decode(&name)? } else { name };
        Some(Some(ListedObject { name, size: size?, modified: modified? }))
    }
}

fn of_element(name: &[u8], in_entry: bool) -> Option<Field> {
    match (name, in_entry) {
        (b"Key" | b"Name", true) => Some(Field::Name),
        (b"Size" | b"Content-Length", true) => Some(Field::Size),
        (b"LastModified" | b"Last-Modified", true) => Some(Field::Modified),
        (b"ResourceType", true) => Some(Field::ResourceType),
        (b"IsTruncated", false) => Some(Field::IsTruncated),
        (b"NextContinuationToken" | b"NextMarker", false) => Some(Field::Token),
        (b"EncodingType", false) => Some(Field::Encoding),
        _ => None,
    }
}

/// Whether Azure has encoded a name, since XML cannot contain it.
fn says_encoded(start: &BytesStart<'_>) -> bool {
    let attribute = start.try_get_attribute("Encoded").ok().flatten();
    attribute.is_some_and(|attribute| attribute.value.eq_ignore_ascii_case(b"true"))
}

fn decode(name: &str) -> Option<String> {
    percent_decode_str(name).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Reads a time of S3 and Google (RFC 3339) or Azure (RFC 9110).
fn time(text: &str) -> Option<SystemTime> {
    let iso = DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from);
    iso.or_else(|| httpdate::parse_http_date(text).ok())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn page(document: &str) -> Option<ListPage> {
        Document::read(document.as_bytes()).and_then(Document::into_page)
    }

    fn entry(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-27T07:30:00.250Z</LastModified>\
             <ETag>&quot;x&quot;</ETag><Size>12</Size><Owner><ID>1</ID><DisplayName>n</DisplayName></Owner></Contents>"
        )
    }

    fn s3(more: &str, keys: &[&str]) -> String {
        let entries: String = keys.iter().map(|key| entry(key)).collect();
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>bucket</Name><Prefix/>{entries}<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>{more}\
             </ListBucketResult>"
        )
    }

    fn names(page: &ListPage) -> Vec<&str> {
        page.objects.iter().map(|object| object.name.as_str()).collect()
    }

    #[test]
    fn list_of_s3_is_read() {
        let last =
            page(&s3("<IsTruncated>false</IsTruncated>", &[" a&amp;b\\c ", "/d//", "e&#1;+%20"])).unwrap();
        assert_eq!(names(&last), [" a&b\\c ", "/d//", "e\u{1}+%20"]);
        assert_eq!(last.next, None);
        let modified = UNIX_EPOCH + Duration::from_millis(1_795_764_600_250);
        assert_eq!((last.objects[0].size, last.objects[0].modified), (12, modified));
        let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
        assert_eq!(page(&s3(more, &["a"])).unwrap().next, Some(NextPage::Token("t".to_owned())));
        let empty = page(&s3("<IsTruncated>false</IsTruncated>", &[])).unwrap();
        assert_eq!(empty, ListPage::default());
    }

    #[test]
    fn encoded_names_are_decoded() {
        let more = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>";
        let keys = ["a+b%2B%25/R%C3%B6ntgen", "%01"];
        assert_eq!(names(&page(&s3(more, &keys)).unwrap()), ["a b+%/Röntgen", "\u{1}"]);
        assert_eq!(page(&s3(more, &["%FF"])), None, "no name");
    }

    #[test]
    fn server_without_marks_is_asked_for_what_follows() {
        let page = page(&s3("<IsTruncated>true</IsTruncated>", &["a", "b c"])).unwrap();
        assert_eq!(page.next, Some(NextPage::After("b c".to_owned())));
        let request = ListRequest { prefix: "x y/".to_owned(), folders: false, next: page.next, limit: 7 };
        assert_eq!(
            request.s3_query(),
            "marker=b%20c&delimiter=%2F&encoding-type=url&list-type=2&max-keys=7&prefix=x%20y%2F&start-after=b%20c"
        );
    }

    #[test]
    fn list_of_azure_is_read() {
        let document = |next: &str| {
            format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\" \
                 ContainerName=\"c\"><Blobs><Blob><Name>a+b%20</Name><Properties><Last-Modified>Fri, 27 Nov 2026 07:30:00 \
                 GMT</Last-Modified><Content-Length>3</Content-Length><ResourceType>file</ResourceType></Properties>\
                 </Blob><Blob><Name Encoded=\"true\">%01</Name><Properties><Last-Modified>Fri, 27 Nov 2026 07:30:00 GMT\
                 </Last-Modified><Content-Length>4</Content-Length></Properties></Blob><Blob><Name>folder</Name>\
                 <Properties><ResourceType>directory</ResourceType></Properties></Blob><BlobPrefix><Name>p/</Name>\
                 </BlobPrefix></Blobs>{next}</EnumerationResults>"
            )
        };
        let last = page(&document("<NextMarker />")).unwrap();
        assert_eq!((names(&last), last.next.clone()), (vec!["a+b%20", "\u{1}"], None));
        assert_eq!(last.objects[1].modified, UNIX_EPOCH + Duration::from_secs(1_795_764_600));
        let next = page(&document("<NextMarker>m!1</NextMarker>")).unwrap().next;
        assert_eq!(next, Some(NextPage::Token("m!1".to_owned())));
        assert_eq!(page(&document("")), None, "it does not say whether there is more");
    }

    #[test]
    fn anything_else_is_no_list() {
        let whole = s3("<IsTruncated>false</IsTruncated>", &["a", "b"]);
        for length in 0..whole.len() {
            assert_eq!(page(&whole[..length]), None, "cut off after {length} bytes");
        }
        for document in [
            "<html/>".to_owned(),
            "<ListBucketResult/>".to_owned(),
            s3("", &["a"]),
            s3("<IsTruncated>perhaps</IsTruncated>", &["a"]),
            s3("<IsTruncated>true</IsTruncated>", &[]),
            s3("<IsTruncated>false</IsTruncated>", &[""]),
            whole.replace("<Size>12</Size>", ""),
            whole.replace("2026-11-27T07:30:00.250Z", "yesterday"),
            whole.replace("12", "-1"),
        ] {
            assert_eq!(page(&document), None, "{document}");
        }
    }
}

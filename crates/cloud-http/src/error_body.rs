//! Parses the error bodies of servers and of what stands in front of them: XML of S3, Azure and Google, JSON of
//! Google, token services (RFC 6749, 5.2) and others, HTML and text.

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesRef, Event};
use serde_json::{Map, Value};

use crate::exchange::Refusal;
use crate::names::shown_text;
use crate::redact::Secrets;

/// Maximum number of letters of an error code and of a request id.
const LONGEST_NAME: usize = 100;

/// Returns the code, message and request id of an error body. The rest is ignored, because it can contain
/// access keys and the string that was signed. `secrets` are removed from the message.
///
/// Only documents in the form of a cloud have a code. A page or a text has at most a message.
pub(crate) fn parse(body: &[u8], secrets: &Secrets) -> Refusal {
    let body = body.trim_ascii();
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return json.as_object().map(|object| of_json(object, secrets)).unwrap_or_default();
    }
    let Some(text) = decode(body) else { return Refusal::default() };
    if is_html(&text) {
        return Refusal { message: title(&text, secrets), ..Refusal::default() };
    }
    if text.starts_with('<') {
        return of_xml(text.as_bytes(), secrets);
    }
    Refusal { message: Some(secrets.one_line(&text)).filter(|line| !line.is_empty()), ..Refusal::default() }
}

/// Decodes UTF-8 or, like old web servers, ISO 8859-1; `None` if `body` is not text, which may be an echo of an
/// upload.
fn decode(body: &[u8]) -> Option<String> {
    let is_binary = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    if body.iter().any(is_binary) {
        return None;
    }
    Some(match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => body.iter().copied().map(char::from).collect(),
    })
}

fn is_html(text: &str) -> bool {
    let start = text.bytes().take(1024).collect::<Vec<_>>().to_ascii_lowercase();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<title"]
        .iter()
        .any(|tag| start.windows(tag.len()).any(|part| part == *tag))
}

/// Returns the title of a page, or else its first heading.
fn title(page: &str, secrets: &Secrets) -> Option<String> {
    // Keeps the positions of all letters.
    let lower = page.to_ascii_lowercase();
    ["title", "h1"].into_iter().find_map(|element| {
        let tag = lower.find(&format!("<{element}"))?;
        let start = tag + lower[tag..].find('>')? + 1;
        let end = start + lower[start..].find("</")?;
        let raw = &page[start..end];
        let text = unescape(raw).map_or_else(|_| raw.to_owned(), |text| text.into_owned());
        Some(secrets.one_line(&text)).filter(|line| !line.is_empty())
    })
}

/// <https://cloud.google.com/storage/docs/json_api/v1/status-codes>, Azure's
/// `{"error": {"code": …, "message": …}}`, `{"error": …, "error_description": …}`, and
/// `{"Code": …, "Message": …}`.
fn of_json(body: &Map<String, Value>, secrets: &Secrets) -> Refusal {
    let text = |object: &Map<String, Value>, names: &[&str]| {
        let named = |name: &&str| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        names.iter().filter_map(named).find_map(|(_, value)| value.as_str().map(str::to_owned))
    };
    let inner = body.get("error").and_then(Value::as_object).unwrap_or(body);
    let reason = inner.get("errors").and_then(|errors| errors.pointer("/0/reason")).and_then(Value::as_str);
    let code = reason.map(str::to_owned).or_else(|| text(inner, &["code", "error", "status", "__type"]));
    let message = text(inner, &["message", "error_description", "detail", "title", "error"]);
    // AWS may put a namespace before the code.
    let without_namespace = |code: &str| code.rsplit('#').next().and_then(name);
    let code = code.as_deref().and_then(without_namespace);
    Refusal {
        message: message.map(|text| secrets.one_line(&text)).filter(|line| Some(line) != code.as_ref()),
        code,
        request_id: text(inner, &["RequestId"]).as_deref().and_then(name),
    }
}

fn of_xml(body: &[u8], secrets: &Secrets) -> Refusal {
    let mut code = String::new();
    let mut message = String::new();
    let mut request_id = String::new();
    let mut region = String::new();
    let mut endpoint = String::new();
    let mut reader = Reader::from_reader(body);
    // The elements whose text has been read are never read again.
    let mut element = Vec::new();
    loop {
        let event = reader.read_event();
        let field = match element.as_slice() {
            b"Code" => Some(&mut code),
            b"Message" => Some(&mut message),
            b"RequestId" => Some(&mut request_id),
            b"Region" => Some(&mut region),
            b"Endpoint" => Some(&mut endpoint),
            _ => None,
        };
        match (event, field) {
            (Ok(Event::Start(start)), _) => element = start.local_name().as_ref().to_vec(),
            (Ok(Event::End(_)), _) => element.clear(),
            (Ok(Event::Text(text)), Some(field)) => field.push_str(&text.decode().unwrap_or_default()),
            (Ok(Event::CData(text)), Some(field)) => field.push_str(&text.decode().unwrap_or_default()),
            (Ok(Event::GeneralRef(reference)), Some(field)) => field.extend(character(&reference)),
            (Ok(Event::Eof) | Err(_), _) => break,
            (Ok(_), _) => {}
        }
    }
    let code = name(&code);
    let message = Some(secrets.one_line(&message)).filter(|line| !line.is_empty());
    let advice =
        match (name(&region), name(&endpoint).filter(|_| code.as_deref() == Some("PermanentRedirect"))) {
            (Some(region), _) => Some(set_region(&region)),
            (None, Some(endpoint)) => Some(format!("the bucket's endpoint is {endpoint}")),
            (None, None) => None,
        };
    Refusal { code, message: with_advice(message, advice), request_id: name(&request_id) }
}

/// Returns what to do about a bucket in another region.
pub(crate) fn set_region(region: &str) -> String {
    format!("set Region to {region:?}")
}

/// Appends `advice` to a message.
pub(crate) fn with_advice(message: Option<String>, advice: Option<String>) -> Option<String> {
    match (message, advice) {
        (Some(message), Some(advice)) if message.contains(&advice) => Some(message),
        (Some(message), Some(advice)) => Some(format!("{}; {advice}", message.trim_end_matches('.'))),
        (message, advice) => message.or(advice),
    }
}

/// Returns the character that `&amp;` or `&#39;` stands for.
pub(crate) fn character(reference: &BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    match &*reference.decode().ok()? {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// Returns a code or an id, unless it is anything else. Within [`hiding_names`](crate::hiding_names), without the name of an
/// object: such a name can look like a code.
pub(crate) fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.:".contains(&byte);
    let is_name = !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(allowed);
    is_name.then(|| shown_text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Refusal {
        super::parse(body, &Secrets::default())
    }

    fn parts(body: impl AsRef<[u8]>) -> (Option<String>, Option<String>) {
        let refusal = parse(body.as_ref());
        (refusal.code, refusal.message)
    }

    fn some(code: &str, message: &str) -> (Option<String>, Option<String>) {
        (Some(code.to_owned()), Some(message.to_owned()))
    }

    fn message(message: &str) -> (Option<String>, Option<String>) {
        (None, Some(message.to_owned()))
    }

    #[test]
    fn only_code_message_and_request_id_are_kept() {
        let refusal = parse(
            b"\xef\xbb\xbf<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does \
              not match</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>AWS4</StringToSign>\
              <RequestId>4442587FB7D0A2F9</RequestId></Error>",
        );
        assert_eq!(refusal.code.as_deref(), Some("SignatureDoesNotMatch"));
        assert_eq!(refusal.message.as_deref(), Some("The signature does not match"));
        assert_eq!(refusal.request_id.as_deref(), Some("4442587FB7D0A2F9"));
        assert!(!format!("{refusal:?}").contains("AKIA"));
    }

    #[tokio::test]
    async fn hidden_names_are_not_taken_for_codes() {
        let hidden = async |body: String| {
            crate::hiding_names(Some("in/1.2/3.dcm".into()), async { parse(body.as_bytes()) }).await
        };
        for name in ["in/1.2/3.dcm", "/bucket/1.2.840.1/x.dcm"] {
            let refusals = [
                hidden(format!("{{\"error\": {name:?}, \"RequestId\": {name:?}}}")).await,
                hidden(format!(
                    "<Error><Code>PermanentRedirect</Code><RequestId>{name}</RequestId><Endpoint>{name}</Endpoint></Error>"
                ))
                .await,
                hidden(format!("<Error><Code>{name}</Code><Region>{name}</Region></Error>")).await,
            ];
            for refusal in refusals {
                let shown = format!("{refusal:?}");
                assert!(shown.contains('…'), "{shown}");
                assert!(!shown.contains("1.2") && !shown.contains("3.dcm"), "{shown}");
            }
        }
    }

    #[test]
    fn entities_and_cdata_of_xml_are_decoded() {
        for text in [
            "Tom &amp; Jerry&#39;s &lt;bucket&gt; &quot;x&quot;",
            "<![CDATA[Tom & Jerry's <bucket> \"x\"]]>",
            "Tom <![CDATA[&]]> Jerry&#x27;s &lt;bucket&gt; \"x\"",
            "Tom &amp; Jerry&apos;s &lt;bucket&gt; \"x\"&unknown;",
        ] {
            let body =
                format!("<Error xmlns=\"a\"><Code>Access&#68;enied</Code><Message>{text}</Message></Error>");
            assert_eq!(parts(body), some("AccessDenied", "Tom & Jerry's <bucket> \"x\""), "{text}");
        }
    }

    #[test]
    fn other_region_or_endpoint_is_named() {
        let redirect = |details: &str| {
            format!("<Error><Code>PermanentRedirect</Code><Message>Elsewhere.</Message>{details}</Error>")
        };
        let endpoint = redirect("<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>");
        let expected = "Elsewhere; the bucket's endpoint is b.s3.eu-west-1.amazonaws.com";
        assert_eq!(parts(endpoint), some("PermanentRedirect", expected));
        let region = redirect("<Endpoint>b.s3.test</Endpoint><Region>eu-west-1</Region>");
        assert_eq!(parts(region), some("PermanentRedirect", "Elsewhere; set Region to \"eu-west-1\""));
        assert_eq!(parts(redirect("<Endpoint>a b</Endpoint>")), some("PermanentRedirect", "Elsewhere."));
    }

    #[test]
    fn json_of_token_services_is_parsed() {
        let body = "{\"error\": \"invalid_grant\", \"error_description\": \"Account\\nnot found\"}";
        assert_eq!(parts(body), some("invalid_grant", "Account"));
        assert_eq!(parts("{\"error\": \"invalid_grant\"}"), (Some("invalid_grant".to_owned()), None));
    }

    #[test]
    fn json_of_google_is_parsed() {
        let body = "{\"error\": {\"code\": 403, \"message\": \"No access\\nto it\", \"errors\": [{\"reason\": \"forbidden\"}]}}";
        assert_eq!(parts(body), some("forbidden", "No access"));
        let body =
            "{\"error\": {\"code\": 403, \"message\": \"No access\", \"status\": \"PERMISSION_DENIED\"}}";
        assert_eq!(parts(body), some("PERMISSION_DENIED", "No access"));
    }

    #[test]
    fn other_json_is_parsed() {
        for (body, expected) in [
            (
                "{\"error\":{\"code\":\"AuthorizationFailure\",\"message\":\"No\"}}",
                some("AuthorizationFailure", "No"),
            ),
            ("{\"Code\":\"AccessDenied\",\"Message\":\"No\",\"Key\":\"x\"}", some("AccessDenied", "No")),
            ("{\"__type\":\"DisabledException\",\"message\":\"No\"}", some("DisabledException", "No")),
            (
                "{\"__type\":\"com.amazon.coral.service#AccessDeniedException\",\"Message\":\"No\"}",
                some("AccessDeniedException", "No"),
            ),
            ("{\"message\":\"no Route matched\"}", message("no Route matched")),
            ("{\"error\":\"upstream is down\"}", message("upstream is down")),
            ("{\"title\":\"Denied\",\"status\":403,\"detail\":\"Not you\"}", message("Not you")),
        ] {
            assert_eq!(parts(body), expected, "{body}");
        }
    }

    #[test]
    fn title_of_a_page_is_the_message() {
        let nginx = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1>\
                     </center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";
        assert_eq!(parts(nginx), message("404 Not Found"));
        let page =
            "<!DOCTYPE HTML>\n<Code>No</Code><TITLE lang=\"de\">\n Anmeldung &amp; Hilfe &#8211; \n</TITLE>";
        assert_eq!(parts(page), message("Anmeldung & Hilfe –"));
        assert_eq!(parts("<?xml version=\"1.0\"?><html><body><h1>Blocked</h1>"), message("Blocked"));
        assert_eq!(parts("<html><title>a&nbsp;b</title>"), message("a&nbsp;b"));
        assert_eq!(parts(b"<html><title>Zugriff ung\xfcltig</title>"), message("Zugriff ungültig"));
        assert_eq!(parts("<html><body>text</body></html>"), (None, None));
    }

    #[test]
    fn first_line_of_a_text_is_the_message() {
        assert_eq!(parts("\r\nupstream connect error\nreset"), message("upstream connect error"));
        assert_eq!(parts(b"ung\xfcltig"), message("ungültig"));
    }

    #[test]
    fn other_bodies_are_ignored() {
        let binary = [0_u8; 128];
        let deep = "[".repeat(60_000);
        let nested = "<a>".repeat(20_000);
        for body in [
            &b""[..],
            b"<html><Code",
            b"{\"error\": 1}",
            b"{\"error\": {}}",
            b"\xff\xfe\0H\0i",
            b"<a></b>",
            b"[1]",
            b"<Error><Code>two words</Code></Error>",
            b"\x89PNG\r\n\x1a\n",
            &binary,
            nested.as_bytes(),
        ] {
            assert_eq!(parts(body), (None, None));
        }
        assert!(parts(deep).1.is_some_and(|line| line.chars().count() <= 201));
    }
}

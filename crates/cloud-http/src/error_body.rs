//! Parses the error bodies of servers: XML of S3, Azure and Google, JSON of Google, and JSON of token services
//! (RFC 6749, 5.2).

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;

use crate::exchange::Refusal;

/// Maximum number of characters to keep of a server's text.
const MAX_LENGTH: usize = 200;

/// Returns the code, message and request id of an error body. The rest is ignored, because it can contain
/// access keys and the string that was signed.
pub(crate) fn parse(body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Value>(body) {
        Ok(json) if json.get("error").is_some_and(Value::is_object) => of_google(&json),
        Ok(json) => of_token_service(&json),
        Err(_) => of_storage(body),
    }
}

fn of_token_service(body: &Value) -> Refusal {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(one_line);
    Refusal { code: text("error"), message: text("error_description"), request_id: None }
}

/// <https://cloud.google.com/storage/docs/json_api/v1/status-codes>
fn of_google(body: &Value) -> Refusal {
    let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(one_line);
    Refusal { code: text("/error/errors/0/reason"), message: text("/error/message"), request_id: None }
}

fn of_storage(body: &[u8]) -> Refusal {
    let mut refusal = Refusal::default();
    let mut reader = Reader::from_reader(body);
    let mut element = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => element = start.local_name().as_ref().to_vec(),
            Ok(Event::End(_)) => element.clear(),
            Ok(Event::Text(text)) => {
                let field = match element.as_slice() {
                    b"Code" => &mut refusal.code,
                    b"Message" => &mut refusal.message,
                    b"RequestId" => &mut refusal.request_id,
                    _ => continue,
                };
                if let (None, Ok(text)) = (&field, text.decode()) {
                    *field = Some(one_line(&text));
                }
            }
            Ok(Event::Eof) | Err(_) => return refusal,
            Ok(_) => {}
        }
    }
}

/// Returns the first line of a server's text, without control characters and of limited length, for messages.
pub fn one_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(MAX_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_message_and_request_id_are_kept() {
        let refusal = parse(
            b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not \
              match</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>AWS4</StringToSign>\
              <RequestId>4442587FB7D0A2F9</RequestId></Error>",
        );
        assert_eq!(refusal.code.as_deref(), Some("SignatureDoesNotMatch"));
        assert_eq!(refusal.message.as_deref(), Some("The signature does not match"));
        assert_eq!(refusal.request_id.as_deref(), Some("4442587FB7D0A2F9"));
        assert!(!format!("{refusal:?}").contains("AKIA"));
    }

    #[test]
    fn message_is_one_short_line() {
        let body = format!("<Error><Message>first\x01 line\nsecond {}</Message></Error>", "x".repeat(1000));
        assert_eq!(parse(body.as_bytes()).message.as_deref(), Some("first line"));
    }

    #[test]
    fn json_of_token_services_is_parsed() {
        let refusal =
            parse(b"{\"error\": \"invalid_grant\", \"error_description\": \"Account\\nnot found\"}");
        assert_eq!(refusal.code.as_deref(), Some("invalid_grant"));
        assert_eq!(refusal.message.as_deref(), Some("Account"));
    }

    #[test]
    fn json_of_google_is_parsed() {
        let refusal = parse(
            b"{\"error\": {\"code\": 403, \"message\": \"No access\\nto it\", \"errors\": [{\"reason\": \"forbidden\"}]}}",
        );
        assert_eq!(refusal.code.as_deref(), Some("forbidden"));
        assert_eq!(refusal.message.as_deref(), Some("No access"));
    }

    #[test]
    fn other_bodies_are_ignored() {
        for body in [&b""[..], b"<html><Code", b"{\"error\": 1}", b"{\"error\": {}}", b"\xff\xfe", b"<a></b>"]
        {
            let refusal = parse(body);
            assert_eq!((refusal.code, refusal.message, refusal.request_id), (None, None, None));
        }
    }
}

//! Reading how a server explains an error: in XML, as S3, Azure and Google do, or in JSON, as token services do
//! (RFC 6749, 5.2).

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;

use crate::exchange::Refusal;

/// The longest text of a server that is kept, in characters.
const LONGEST: usize = 200;

/// What an error body says: only its code, message and request id. The rest is left where it is: it can hold access
/// keys and the string that was signed.
pub(crate) fn parse(body: &[u8]) -> Refusal {
    match serde_json::from_slice(body) {
        Ok(json) => of_token_service(&json),
        Err(_) => of_storage(body),
    }
}

fn of_token_service(body: &Value) -> Refusal {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(one_line);
    Refusal { code: text("error"), message: text("error_description"), request_id: None }
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

/// The first line of `text`, without control characters, of a bounded length.
fn one_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_message_and_request_id_are_kept_and_nothing_else() {
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
    fn a_message_is_one_short_line() {
        let body = format!("<Error><Message>first\x01 line\nsecond {}</Message></Error>", "x".repeat(1000));
        assert_eq!(parse(body.as_bytes()).message.as_deref(), Some("first line"));
    }

    #[test]
    fn a_token_services_json_is_understood_too() {
        let refusal =
            parse(b"{\"error\": \"invalid_grant\", \"error_description\": \"Account\\nnot found\"}");
        assert_eq!(refusal.code.as_deref(), Some("invalid_grant"));
        assert_eq!(refusal.message.as_deref(), Some("Account"));
    }

    #[test]
    fn what_is_neither_says_nothing() {
        for body in [&b""[..], b"<html><Code", b"{\"error\": 1}", b"\xff\xfe", b"<a></b>"] {
            let refusal = parse(body);
            assert_eq!((refusal.code, refusal.message, refusal.request_id), (None, None, None));
        }
    }
}

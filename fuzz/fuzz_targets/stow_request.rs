//! Arbitrary bodies of STOW-RS requests give the same result however they arrive, and objects get no other
//! names than three UIDs. What is stored was in the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stow_gateway::{Format, MemorySink, Outcome, Receiver, Report, RequestHead};

const HEAD: RequestHead<'static> =
    RequestHead { content_type: Some("multipart/related; boundary=b"), content_encoding: None, study: None };

fn receive<'a>(sink: &MemorySink, chunks: impl Iterator<Item = &'a [u8]>) -> Report {
    let mut receiver = Receiver::new(sink, &HEAD).expect("a valid head");
    chunks.for_each(|chunk| receiver.push(chunk));
    receiver.finish()
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = input;
    let whole_sink = MemorySink::default();
    let whole = receive(&whole_sink, [body].into_iter());
    let sink = MemorySink::default();
    let report = receive(&sink, body.chunks(usize::from(size) + 1));
    assert_eq!((&report.outcomes, report.malformed), (&whole.outcomes, whole.malformed));
    assert_eq!(sink.objects(), whole_sink.objects());

    for (name, content) in whole_sink.objects() {
        let uids: Vec<&str> = name.strip_suffix(".dcm").expect("the extension").split('/').collect();
        assert_eq!(uids.len(), 3);
        for uid in uids {
            assert!((1..=64).contains(&uid.len()) && !uid.starts_with('.') && !uid.contains(".."));
            assert!(uid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        }
        assert!(body.windows(content.len()).any(|window| window == content));
    }
    for format in [Format::Json, Format::Xml] {
        let answer = whole.answer(format, "https://pacs");
        let stored = whole.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stored(_)));
        assert_eq!(stored, matches!(answer.status, 200 | 202));
        assert!(std::str::from_utf8(&answer.body).is_ok());
    }
});

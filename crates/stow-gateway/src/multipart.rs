//! A parser for `multipart/related` bodies that arrive in chunks.
//!
//! The body of a part is passed on in slices of the chunks, without copies. At most the headers of a part and
//! one partial delimiter are held.
//!
//! Line ends are CR LF only: a bare LF before a boundary may be a byte of a DICOM file.

use bytes::{Buf, Bytes};
use memchr::memmem::{self, Finder};
use memchr::memrchr;

use crate::failure::Malformed;

/// Maximum length of the headers of a part.
const MAX_HEADERS: usize = 16 * 1024;
/// Maximum number of headers of a part.
const MAX_HEADER_LINES: usize = 32;
/// Maximum number of blanks after a boundary.
const MAX_PADDING: usize = 256;

/// What was found in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A part begins.
    Part(PartHeaders),
    /// Bytes of the current part.
    Data(Bytes),
    /// The current part is complete: a boundary and what has to follow it have been read.
    PartEnd,
}

/// The headers of a part that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PartHeaders {
    pub(crate) content_type: Option<String>,
    pub(crate) content_length: Option<u64>,
    /// Whether the part is sent in another form than binary.
    pub(crate) encoded: bool,
}

#[derive(Debug)]
enum State {
    /// In the preamble or in the body of a part.
    Content(Partial),
    /// Between a boundary and the end of its line; the text of up to two bytes that may be `--` or CR LF.
    AfterBoundary { text: Vec<u8>, padding: usize },
    /// In the headers of a part, which are collected with the line end before them.
    Headers(Vec<u8>),
    /// After the closing boundary, where everything is ignored.
    Epilogue,
}

/// How much of a delimiter the last chunk ended with.
#[derive(Debug, Clone, Copy, Default)]
struct Partial {
    matched: usize,
    /// How many of the matched bytes do not belong to the content, but to the line end before it.
    foreign: usize,
}

/// At the beginning of a line: the delimiter's CR LF has been read already.
const LINE_START: Partial = Partial { matched: 2, foreign: 2 };

/// The parser. Results do not depend on how the body is cut into chunks, except for the sizes of
/// [`Event::Data`].
#[derive(Debug)]
pub(crate) struct Parser {
    /// Finds CR LF, two hyphens and the boundary.
    delimiter: Finder<'static>,
    state: State,
    /// Whether the content is that of a part, not the preamble.
    in_part: bool,
}

impl Parser {
    /// Creates a parser for a valid boundary.
    pub(crate) fn new(boundary: &str) -> Self {
        let delimiter = format!("\r\n--{boundary}");
        Self {
            delimiter: Finder::new(&delimiter).into_owned(),
            state: State::Content(LINE_START),
            in_part: false,
        }
    }

    /// Parses a chunk. After an error, the parser must not be used any more.
    pub(crate) fn push(
        &mut self,
        mut chunk: Bytes,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(), Malformed> {
        while !chunk.is_empty() {
            match &mut self.state {
                State::Content(partial) => {
                    let before = *partial;
                    self.content(before, &mut chunk, on_event);
                }
                State::AfterBoundary { .. } => self.after_boundary(&mut chunk, on_event)?,
                State::Headers(_) => self.headers(&mut chunk, on_event)?,
                State::Epilogue => break,
            }
        }
        Ok(())
    }

    /// Checks that the body was complete.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if matches!(self.state, State::Epilogue) { Ok(()) } else { Err(Malformed::Unclosed) }
    }

    /// Passes on content up to the next delimiter, or all of it but what may be the beginning of one.
    fn content(&mut self, before: Partial, chunk: &mut Bytes, on_event: &mut dyn FnMut(Event)) {
        let delimiter = self.delimiter.needle();
        let in_part = self.in_part;
        let mut emit = |data: Bytes| {
            if in_part && !data.is_empty() {
                on_event(Event::Data(data));
            }
        };
        if before.matched > 0 {
            let expected = &delimiter[before.matched..];
            let len = expected.len().min(chunk.len());
            if expected[..len] == chunk[..len] {
                chunk.advance(len);
                self.state = if len == expected.len() {
                    State::AfterBoundary { text: Vec::new(), padding: 0 }
                } else {
                    State::Content(Partial { matched: before.matched + len, ..before })
                };
                return;
            }
            // Only the first byte of a delimiter is CR, so that no other delimiter begins within this one.
            emit(Bytes::copy_from_slice(&delimiter[before.foreign..before.matched]));
        }
        if let Some(at) = self.delimiter.find(chunk) {
            emit(chunk.split_to(at));
            chunk.advance(delimiter.len());
            self.state = State::AfterBoundary { text: Vec::new(), padding: 0 };
            return;
        }
        let tail = chunk.len().saturating_sub(delimiter.len() - 1);
        let partial_at = memrchr(b'\r', &chunk[tail..])
            .map(|at| tail + at)
            .filter(|at| delimiter.starts_with(&chunk[*at..]))
            .unwrap_or(chunk.len());
        emit(chunk.split_to(partial_at));
        self.state = State::Content(Partial { matched: chunk.len(), foreign: 0 });
        chunk.clear();
    }

    fn after_boundary(
        &mut self,
        chunk: &mut Bytes,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(), Malformed> {
        let State::AfterBoundary { text, padding } = &mut self.state else { return Ok(()) };
        let byte = chunk.get_u8();
        if text.is_empty() && matches!(byte, b' ' | b'\t') {
            *padding += 1;
            return if *padding > MAX_PADDING { Err(Malformed::Boundary) } else { Ok(()) };
        }
        text.push(byte);
        match text.as_slice() {
            b"\r" => {}
            b"-" if *padding == 0 => {}
            b"--" => {
                if self.in_part {
                    on_event(Event::PartEnd);
                }
                self.state = State::Epilogue;
            }
            b"\r\n" => self.state = State::Headers(b"\r\n".to_vec()),
            _ => return Err(Malformed::Boundary),
        }
        Ok(())
    }

    fn headers(&mut self, chunk: &mut Bytes, on_event: &mut dyn FnMut(Event)) -> Result<(), Malformed> {
        const END: &[u8] = b"\r\n\r\n";
        let State::Headers(text) = &mut self.state else { return Ok(()) };
        let held = text.len();
        let taken = chunk.len().min(MAX_HEADERS + END.len() - held);
        text.extend_from_slice(&chunk[..taken]);
        let searched_from = held.saturating_sub(END.len() - 1);
        let Some(found) = memmem::find(&text[searched_from..], END) else {
            if text.len() >= MAX_HEADERS + END.len() {
                return Err(Malformed::HeadersTooLarge(MAX_HEADERS));
            }
            chunk.advance(taken);
            return Ok(());
        };
        let end = searched_from + found + END.len();
        chunk.advance(end - held);
        text.truncate(end);
        let headers = parse_headers(text)?;
        // Not earlier: a part that is followed by garbage may have been split by its own content.
        if self.in_part {
            on_event(Event::PartEnd);
        }
        on_event(Event::Part(headers));
        self.in_part = true;
        self.state = State::Content(LINE_START);
        Ok(())
    }
}

/// Parses headers that begin with the line end before them and end with an empty line.
fn parse_headers(text: &mut [u8]) -> Result<PartHeaders, Malformed> {
    // Java's mail library folds long headers: the next line then begins with a blank.
    for at in 2..text.len() - 2 {
        if text[at..].starts_with(b"\r\n") && matches!(text[at + 2], b' ' | b'\t') {
            text[at..at + 2].fill(b' ');
        }
    }
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(&text[2..], &mut lines) else {
        return Err(Malformed::Headers);
    };
    let mut headers = PartHeaders::default();
    for line in lines {
        let text = String::from_utf8_lossy(line.value);
        let value = text.trim();
        if line.name.eq_ignore_ascii_case("content-type") {
            headers.content_type = Some(value.to_owned());
        } else if line.name.eq_ignore_ascii_case("content-length") {
            headers.content_length = Some(value.parse().map_err(|_| Malformed::Headers)?);
        } else if line.name.eq_ignore_ascii_case("content-transfer-encoding") {
            let plain = ["binary", "8bit", "7bit"].iter().any(|name| value.eq_ignore_ascii_case(name));
            headers.encoded |= !plain;
        } else if line.name.eq_ignore_ascii_case("content-encoding") {
            headers.encoded |= !value.eq_ignore_ascii_case("identity");
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Event, MAX_HEADERS, Parser, PartHeaders};
    use crate::failure::Malformed;
    use crate::test_files::chunks;

    /// The parts that are complete, then what is wrong.
    fn parse<'a>(
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<(PartHeaders, Vec<u8>)>, Option<Malformed>) {
        let mut parser = Parser::new("AaB");
        let mut complete = Vec::new();
        let mut open = None;
        let mut on_event = |event| match event {
            Event::Part(headers) => assert!(open.replace((headers, Vec::new())).is_none()),
            Event::Data(data) => {
                assert!(!data.is_empty());
                open.as_mut().unwrap().1.extend_from_slice(&data);
            }
            Event::PartEnd => complete.push(open.take().unwrap()),
        };
        let pushed = chunks
            .into_iter()
            .try_for_each(|chunk| parser.push(Bytes::copy_from_slice(chunk), &mut on_event));
        let error = pushed.and_then(|()| parser.finish()).err();
        (complete, error)
    }

    fn bodies(body: &[u8]) -> (Vec<Vec<u8>>, Option<Malformed>) {
        let (parts, error) = parse([body]);
        (parts.into_iter().map(|(_, content)| content).collect(), error)
    }

    #[test]
    fn complete_bodies() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"--AaB\r\n\r\none\r\n--AaB--", &[b"one"]),
            (b"--AaB\r\n\r\none\r\n--AaB\r\n\r\ntwo\r\n--AaB--\r\n", &[b"one", b"two"]),
            // A preamble, an epilogue, blanks after boundaries.
            (b"hello --AaB\r\n--AaB \t\r\n\r\none\r\n--AaB-- \r\n--AaB\r\n\r\nno\r\n--AaB--", &[b"one"]),
            (b"\r\n--AaB\r\n\r\n\r\n--AaB--", &[b""]),
            // The line end after the headers is that of the delimiter.
            (b"--AaB\r\nA: b\r\n\r\n--AaB--", &[b""]),
            // Everything that resembles a delimiter.
            (
                b"--AaB\r\n\r\n--Aa\r\n--Aa\r\r\n--\n--AaB\r--AaB--AaB\r\r\n--AaB--",
                &[b"--Aa\r\n--Aa\r\r\n--\n--AaB\r--AaB--AaB\r"],
            ),
            (b"--AaB\r\n\r\n\r\n\r\n\r\n--AaB--", &[b"\r\n\r\n"]),
            (b"--AaB--", &[]),
        ];
        for (body, parts) in cases {
            let (found, error) = bodies(body);
            assert_eq!(
                (found.as_slice(), error),
                (&*parts.iter().map(|p| p.to_vec()).collect::<Vec<_>>(), None)
            );
        }
    }

    #[test]
    fn incomplete_and_malformed_bodies() {
        let cases: &[(&[u8], usize, Malformed)] = &[
            (b"", 0, Malformed::Unclosed),
            (b"no multipart at all", 0, Malformed::Unclosed),
            (b"--AaB\r\n\r\none\r\n--AaB\r\n\r\ntwo", 1, Malformed::Unclosed),
            (b"--AaB\r\n\r\none\r\n--Aa", 0, Malformed::Unclosed),
            // The part may go on after what seems to be a boundary.
            (b"--AaB\r\n\r\none\r\n--AaB", 0, Malformed::Unclosed),
            (b"--AaB\r\n\r\none\r\n--AaB\r\n\xFF\x00\r\n\r\n--AaB--", 0, Malformed::Headers),
            (b"--AaB\r\n\r\none\r\n--AaBC\r\n\r\n--AaB--", 0, Malformed::Boundary),
            (b"--AaB\r\n\r\none\r\n--AaB -- ", 0, Malformed::Boundary),
            (b"--AaB\n\none\n--AaB--\n", 0, Malformed::Boundary),
            (b"--AaB\r\nContent-Length: -1\r\n\r\none\r\n--AaB--", 0, Malformed::Headers),
        ];
        for (body, complete, expected) in cases {
            let (found, error) = bodies(body);
            assert_eq!((found.len(), error), (*complete, Some(*expected)), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn headers_of_parts() {
        let body = b"--AaB\r\nContent-Type: application/dicom;\r\n\t transfer-syntax=1.2\r\ncontent-length:3\r\n\
            Content-Transfer-Encoding: Binary\r\nContent-Disposition: x; filename=\xE9.dcm\r\n\r\none\r\n--AaB\r\nContent-Encoding: gzip\r\n\r\ntwo\r\n--AaB--";
        let (parts, error) = parse([&body[..]]);
        assert_eq!(error, None);
        let first = PartHeaders {
            content_type: Some("application/dicom;   \t transfer-syntax=1.2".to_owned()),
            content_length: Some(3),
            encoded: false,
        };
        assert_eq!(parts[0].0.content_length, first.content_length);
        assert!(parts[0].0.content_type.as_deref().unwrap().ends_with("transfer-syntax=1.2"));
        assert!(!parts[0].0.encoded && parts[1].0.encoded);
    }

    #[test]
    fn headers_are_bounded() {
        let header = |len: usize| {
            [b"--AaB\r\nX: ".to_vec(), vec![b'a'; len], b"\r\n\r\none\r\n--AaB--".to_vec()].concat()
        };
        assert_eq!(bodies(&header(MAX_HEADERS - 10)).1, None);
        assert_eq!(bodies(&header(MAX_HEADERS)).1, Some(Malformed::HeadersTooLarge(MAX_HEADERS)));
        let endless = vec![b'a'; 3 * MAX_HEADERS];
        let chunks = [b"--AaB\r\n".as_slice()].into_iter().chain(endless.chunks(7));
        assert_eq!(parse(chunks).1, Some(Malformed::HeadersTooLarge(MAX_HEADERS)));
        let blanks = [b"--AaB".to_vec(), vec![b' '; 1000]].concat();
        assert_eq!(bodies(&blanks).1, Some(Malformed::Boundary));
    }

    #[test]
    fn bodies_are_passed_on_without_copies() {
        let mut parser = Parser::new("AaB");
        let body = Bytes::from(b"--AaB\r\n\r\nsome content\r\n--AaB--".to_vec());
        let mut found = Vec::new();
        parser.push(body.clone(), &mut |event| found.extend(Some(event))).unwrap();
        let Event::Data(data) = &found[1] else { panic!("{found:?}") };
        assert_eq!(data.as_ptr(), body[9..].as_ptr());
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    &b"\r\n--AaB"[..], b"--AaB", b"\r\n", b"\r", b"\n", b"--", b"-", b"A", b"a", b"B", b" ",
                    b"Content-Length: 5", b"\xFF", b"\r\n\r\n",
                ]),
                0..24,
            ),
            sizes in prop::collection::vec(1_usize..6, 1..8),
        ) {
            let body = pieces.concat();
            let whole = parse([&body[..]]);
            prop_assert_eq!(parse(chunks(&body, &sizes)), whole);
        }
    }
}

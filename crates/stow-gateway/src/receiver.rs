//! Drives a sink with the parts of a request.

use std::collections::HashMap;
use std::mem;

use bytes::Bytes;

use crate::dicom::{HeaderReader, Reference, Unreadable};
use crate::failure::{Failure, Malformed, Rejection};
use crate::media_type;
use crate::multipart::{Event, Parser, PartHeaders};
use crate::sink::{Instance, MAX_WRITE, Receipt, Sink, Upload};
use crate::uid::Uid;

/// Maximum number of parts of a request, so that its report remains small.
const MAX_PARTS: usize = 100_000;

/// What a request states before its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead<'a> {
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The header `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// The Study Instance UID in the URL.
    pub study: Option<&'a str>,
}

/// Receives the body of one request. Dropping it aborts the upload of an incomplete instance; uploads of
/// complete ones continue.
#[derive(Debug)]
pub struct Receiver<S: Sink> {
    parser: Parser,
    /// What is wrong with the body. The rest of it is ignored.
    malformed: Option<Malformed>,
    parts: Parts<S>,
}

/// The outcome of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has confirmed the instance.
    Stored(Instance),
    /// The instance is not stored.
    Failed {
        /// The instance, if its UIDs are known.
        reference: Option<Reference>,
        /// Why.
        failure: Failure,
    },
}

/// What became of a request.
#[derive(Debug)]
pub struct Report {
    /// The outcome of each part, in their order.
    pub outcomes: Vec<Outcome>,
    /// What is wrong with the body as a whole. Parts before that are not affected.
    pub malformed: Option<Malformed>,
    /// Bytes of the stored instances.
    pub stored_bytes: u64,
}

impl<S: Sink> Receiver<S> {
    /// Begins a request.
    ///
    /// # Errors
    ///
    /// [`Rejection`] if the body is not worth reading.
    pub fn new(sink: S, head: &RequestHead<'_>) -> Result<Self, Rejection> {
        if head.content_encoding.is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
            return Err(Rejection::Encoded);
        }
        let boundary = media_type::boundary(head.content_type.unwrap_or_default())?;
        let study = head.study.map(|study| Uid::parse(study.as_bytes()).map_err(Rejection::Study));
        Ok(Self {
            parser: Parser::new(&boundary),
            malformed: None,
            parts: Parts {
                sink,
                study: study.transpose()?,
                current: None,
                outcomes: Vec::new(),
                latest: HashMap::new(),
            },
        })
    }

    /// Adds a chunk of the body, of any size. Blocks while the sink has no room.
    pub fn push(&mut self, chunk: &[u8]) {
        // A server may deliver a whole body as one chunk, which must not be in memory twice.
        for piece in chunk.chunks(MAX_WRITE) {
            if self.malformed.is_some() {
                break;
            }
            let parts = &mut self.parts;
            let parsed = self.parser.push(Bytes::copy_from_slice(piece), &mut |event| parts.event(event));
            self.malformed = parsed.err();
        }
        if self.malformed.is_some() {
            // An upload must not wait for the rest of a body that is ignored.
            self.parts.abandon();
        }
    }

    /// Marks the end of the body, and blocks until all uploads have ended.
    pub fn finish(mut self) -> Report {
        let malformed = self.malformed.or_else(|| self.parser.finish().err());
        self.parts.abandon();
        let mut stored_bytes = 0;
        let outcomes = self.parts.outcomes.into_iter().map(|part| part.outcome(&mut stored_bytes)).collect();
        Report { outcomes, malformed, stored_bytes }
    }
}

/// The UIDs in an object's name.
type ObjectKey = [Uid; 3];

fn object_key(instance: &Instance) -> ObjectKey {
    [instance.study.clone(), instance.series.clone(), instance.sop_instance.clone()]
}

/// The parts so far, and the sink that they go to.
#[derive(Debug)]
struct Parts<S: Sink> {
    sink: S,
    /// The study of the URL.
    study: Option<Uid>,
    current: Option<Part<S::Upload>>,
    outcomes: Vec<Received<<S::Upload as Upload>::Receipt>>,
    /// For each object, the index of its last upload in `outcomes`.
    latest: HashMap<ObjectKey, usize>,
}

/// A part that is being received.
#[derive(Debug)]
struct Part<U> {
    declared_len: Option<u64>,
    len: u64,
    state: State<U>,
}

#[derive(Debug)]
enum State<U> {
    /// The UIDs are not known yet.
    Header(HeaderReader),
    Uploading {
        instance: Instance,
        upload: U,
    },
    /// The rest of the part is ignored.
    Failed {
        reference: Option<Reference>,
        failure: Failure,
    },
}

/// A part that has been received.
#[derive(Debug)]
enum Received<R> {
    Uploaded { instance: Instance, receipt: R, len: u64 },
    Known { outcome: Outcome, len: u64 },
}

impl<R: Receipt> Received<R> {
    /// Waits for the upload, and adds the instance's length if it is stored.
    fn outcome(self, stored_bytes: &mut u64) -> Outcome {
        let (outcome, len) = match self {
            Self::Uploaded { instance, receipt, len } => (confirmed(instance, receipt), len),
            Self::Known { outcome, len } => (outcome, len),
        };
        if matches!(outcome, Outcome::Stored(_)) {
            *stored_bytes += len;
        }
        outcome
    }
}

fn confirmed(instance: Instance, receipt: impl Receipt) -> Outcome {
    match receipt.wait() {
        Ok(()) => Outcome::Stored(instance),
        Err(error) => Outcome::Failed { reference: Some(reference(&instance)), failure: error.into() },
    }
}

fn reference(instance: &Instance) -> Reference {
    Reference { sop_class: instance.sop_class.clone(), sop_instance: instance.sop_instance.clone() }
}

impl<S: Sink> Parts<S> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Part(headers) => self.begin(&headers),
            Event::Data(bytes) => self.data(bytes),
            Event::PartEnd => self.end(),
        }
    }

    fn begin(&mut self, headers: &PartHeaders) {
        let refused = if self.outcomes.len() >= MAX_PARTS {
            Some(Failure::TooManyParts(MAX_PARTS))
        } else if headers.encoded {
            Some(Failure::Encoded)
        } else if headers.content_type.as_deref().is_some_and(|value| !media_type::is_dicom(value)) {
            Some(Failure::MediaType)
        } else {
            None
        };
        let state = match refused {
            Some(failure) => State::Failed { reference: None, failure },
            None => State::Header(HeaderReader::new()),
        };
        self.current = Some(Part { declared_len: headers.content_length, len: 0, state });
    }

    fn data(&mut self, bytes: Bytes) {
        let Some(mut part) = self.current.take() else { return };
        part.len += bytes.len() as u64;
        part.state = match part.state {
            State::Header(reader) => self.header(reader, bytes),
            State::Uploading { instance, upload } => write(instance, upload, [bytes]),
            failed @ State::Failed { .. } => failed,
        };
        self.current = Some(part);
    }

    fn header(&mut self, mut reader: HeaderReader, bytes: Bytes) -> State<S::Upload> {
        match reader.push(bytes) {
            Ok(None) => State::Header(reader),
            Ok(Some((instance, pieces))) => self.upload(instance, [pieces.first, pieces.second]),
            Err(error) => error.into(),
        }
    }

    /// Starts the upload of an instance, whose first bytes are known.
    fn upload(&mut self, mut instance: Instance, first: [Bytes; 2]) -> State<S::Upload> {
        if self.study.as_ref().is_some_and(|study| *study != instance.study) {
            return failed(&instance, Failure::OtherStudy);
        }
        if let Some(index) = self.latest.get(&object_key(&instance)) {
            wait(&mut self.outcomes[*index]);
        }
        if let Some(Received::Uploaded { instance: previous, .. }) = self.outcomes.last() {
            instance.share(previous);
        }
        match self.sink.begin(&instance) {
            Ok(upload) => write(instance, upload, first),
            Err(error) => failed(&instance, error.into()),
        }
    }

    fn end(&mut self) {
        let Some(mut part) = self.current.take() else { return };
        if let State::Header(reader) = part.state {
            part.state = match reader.finish() {
                Ok((instance, bytes)) => self.upload(instance, [bytes, Bytes::new()]),
                Err(error) => error.into(),
            };
        }
        let wrong_length = part.declared_len.filter(|declared| *declared != part.len);
        let received = match (part.state, wrong_length) {
            (State::Uploading { instance, upload }, None) => {
                self.latest.insert(object_key(&instance), self.outcomes.len());
                Received::Uploaded { instance, receipt: upload.finish(), len: part.len }
            }
            (state, Some(declared)) => unfinished(state, Failure::WrongLength { declared, actual: part.len }),
            (state, None) => unfinished(state, Failure::Incomplete),
        };
        self.push(received);
    }

    /// Records that the rest of the current part will not come, and aborts its upload.
    fn abandon(&mut self) {
        if let Some(part) = self.current.take() {
            self.push(unfinished(part.state, Failure::Incomplete));
        }
    }

    /// Adds an outcome. Of the parts after [`MAX_PARTS`], only the first is reported.
    fn push(&mut self, received: Received<<S::Upload as Upload>::Receipt>) {
        if self.outcomes.len() <= MAX_PARTS {
            self.outcomes.push(received);
        }
    }
}

impl<U> From<Unreadable> for State<U> {
    fn from(Unreadable { failure, reference }: Unreadable) -> Self {
        Self::Failed { reference, failure }
    }
}

fn failed<U>(instance: &Instance, failure: Failure) -> State<U> {
    State::Failed { reference: Some(reference(instance)), failure }
}

fn write<U: Upload>(instance: Instance, mut upload: U, pieces: impl IntoIterator<Item = Bytes>) -> State<U> {
    let mut pieces = pieces.into_iter().filter(|bytes| !bytes.is_empty());
    match pieces.try_for_each(|bytes| upload.write(bytes)) {
        Ok(()) => State::Uploading { instance, upload },
        Err(error) => failed(&instance, error.into()),
    }
}

/// The outcome of a part whose instance is not stored: the failure that was found before, or `otherwise`.
fn unfinished<U, R>(state: State<U>, otherwise: Failure) -> Received<R> {
    let (reference, failure) = match state {
        State::Failed { reference, failure } => (reference, failure),
        State::Uploading { instance, .. } => (Some(reference(&instance)), otherwise),
        State::Header(_) => (None, otherwise),
    };
    Received::Known { outcome: Outcome::Failed { reference, failure }, len: 0 }
}

/// Waits for an upload, so that another one of the same instance cannot overtake it.
fn wait<R: Receipt>(received: &mut Received<R>) {
    let placeholder = Received::Known {
        outcome: Outcome::Failed { reference: None, failure: Failure::Incomplete },
        len: 0,
    };
    *received = match mem::replace(received, placeholder) {
        Received::Uploaded { instance, receipt, len } => {
            Received::Known { outcome: confirmed(instance, receipt), len }
        }
        known @ Received::Known { .. } => known,
    };
}

impl Report {
    /// How many instances are stored.
    pub fn stored(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Stored(_))).count()
    }

    /// The failures with the numbers of their parts, counted from 1, for the log.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> {
        (1..).zip(&self.outcomes).filter_map(|(number, outcome)| match outcome {
            Outcome::Failed { failure, .. } => Some((number, failure)),
            Outcome::Stored(_) => None,
        })
    }
}

#[cfg(test)]
mod slow_sink;
#[cfg(test)]
mod tests;

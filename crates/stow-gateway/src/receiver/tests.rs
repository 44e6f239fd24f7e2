use std::collections::BTreeMap;
use std::{slice, thread};

use dicom_core::Tag;
use proptest::prelude::*;

use super::slow_sink::{MAX_HELD, MAX_UPLOADS, SlowSink};
use super::{Outcome, Receiver, Report, RequestHead};
use crate::dicom::{SOP_CLASS, SOP_INSTANCE};
use crate::failure::{Failure, Malformed, Rejection};
use crate::memory::MemorySink;
use crate::sink::{Sink, UploadErrorKind};
use crate::test_files::{BIG_ENDIAN, CT, DEFLATED, EXPLICIT, File, IMPLICIT, chunks, element};
use crate::uid::InvalidUid;

const HEAD: RequestHead<'static> = RequestHead {
    content_type: Some("multipart/related; type=\"application/dicom\"; boundary=cut"),
    content_encoding: None,
    study: None,
};

/// A file whose upload begins before its end.
fn file(instance: &str) -> Vec<u8> {
    File::new(EXPLICIT, instance).with_pixels(&[3; 8000]).bytes()
}

fn part(headers: &str, content: &[u8]) -> Vec<u8> {
    [format!("--cut\r\n{headers}\r\n").as_bytes(), content, b"\r\n"].concat()
}

fn body(files: &[Vec<u8>]) -> Vec<u8> {
    let parts = files.iter().map(|file| part("Content-Type: application/dicom\r\n", file));
    [parts.collect::<Vec<_>>().concat(), b"--cut--\r\n".to_vec()].concat()
}

fn receive<'a, S: Sink>(
    sink: S,
    head: &RequestHead<'_>,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Report {
    let mut receiver = Receiver::new(sink, head).unwrap();
    chunks.into_iter().for_each(|chunk| receiver.push(chunk));
    receiver.finish()
}

/// Status, stored objects, and for each part `None` or its failure.
fn outcome(head: &RequestHead<'_>, body: &[u8]) -> (u16, BTreeMap<String, Vec<u8>>, Vec<Option<Failure>>) {
    let sink = MemorySink::default();
    let report = receive(&sink, head, [body]);
    let failures = report.outcomes.iter().map(|outcome| match outcome {
        Outcome::Stored(_) => None,
        Outcome::Failed { failure, .. } => Some(failure.clone()),
    });
    let objects = sink.objects().into_iter().map(|(name, content)| (name, content.to_vec()));
    (report.status(), objects.collect(), failures.collect())
}

fn name(instance: &str) -> String {
    format!("1.2/1.2.3/{instance}.dcm")
}

#[test]
fn everything_is_stored() {
    let files: Vec<_> = [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN]
        .into_iter()
        .enumerate()
        .map(|(index, syntax)| File::new(syntax, &format!("9.{index}")).bytes())
        .collect();
    let (status, objects, failures) = outcome(&HEAD, &body(&files));
    assert_eq!((status, failures), (200, vec![None; 4]));
    let expected = files.into_iter().enumerate().map(|(index, file)| (name(&format!("9.{index}")), file));
    assert_eq!(objects, expected.collect());
}

/// The status, the stored instances and what is wrong with each part.
#[test]
fn broken_requests() {
    let one = file("1");
    let two = file("2");
    let good = body(&[one.clone(), two.clone()]);
    let second_part = one.len() + 43;
    let with_uids = |uids: [&str; 4]| File::with_uids(EXPLICIT, uids).bytes();
    let invalid = |tag, reason| Some(Failure::InvalidUid { tag, reason });
    let study = Tag(0x0020, 0x000D);
    let long = "1".repeat(65);
    let incomplete = Some(Failure::Incomplete);
    type Case<'a> = (&'a str, Vec<u8>, u16, &'a [&'a str], Vec<Option<Failure>>);
    let cases: Vec<Case<'_>> = vec![
        ("empty", Vec::new(), 400, &[], vec![]),
        ("no parts", b"--cut--".to_vec(), 400, &[], vec![]),
        ("no multipart", one.clone(), 400, &[], vec![]),
        ("cut in the first part", good[..600].to_vec(), 400, &[], vec![incomplete.clone()]),
        ("cut in the header", good[..300].to_vec(), 400, &[], vec![incomplete.clone()]),
        (
            "cut in the second part",
            good[..good.len() - 50].to_vec(),
            202,
            &["1"],
            vec![None, incomplete.clone()],
        ),
        (
            "cut in the headers of a part",
            good[..second_part + 20].to_vec(),
            400,
            &[],
            vec![incomplete.clone()],
        ),
        ("no closing boundary", good[..good.len() - 4].to_vec(), 202, &["1"], vec![None, incomplete.clone()]),
        ("another boundary", body(slice::from_ref(&one)).replace(b"cut", b"CUT"), 400, &[], vec![]),
        (
            "boundary in the pixel data",
            body(&[
                one.clone(),
                File::new(EXPLICIT, "2").with_pixels(b"a--cut--b\r\n--cu\r\n--CUT\r\n").bytes(),
            ]),
            200,
            &["1", "2"],
            vec![None, None],
        ),
        (
            "delimiter in the pixel data",
            body(&[one.clone(), File::new(EXPLICIT, "2").with_pixels(b"a\r\n--cut\r\nb\r\n\r\n").bytes()]),
            202,
            &["1"],
            vec![None, incomplete.clone()],
        ),
        (
            "Content-Length too small",
            [part("Content-Length: 5\r\n", &one), part("", &two), b"--cut--".to_vec()].concat(),
            202,
            &["2"],
            vec![Some(Failure::WrongLength { declared: 5, actual: one.len() as u64 }), None],
        ),
        (
            "correct Content-Length",
            [part(&format!("Content-Length: {}\r\n", one.len()), &one), b"--cut--".to_vec()].concat(),
            200,
            &["1"],
            vec![None],
        ),
        (
            "no DICOM",
            body(&[b"hello".to_vec(), two.clone()]),
            202,
            &["2"],
            vec![Some(Failure::NotDicom), None],
        ),
        ("nothing but no DICOM", body(&[b"hello".to_vec()]), 409, &[], vec![Some(Failure::NotDicom)]),
        (
            "another type",
            [part("Content-Type: image/jpeg\r\n", &one), part("", &two), b"--cut--".to_vec()].concat(),
            202,
            &["2"],
            vec![Some(Failure::MediaType), None],
        ),
        (
            "base64",
            [part("Content-Transfer-Encoding: base64\r\n", &one), b"--cut--".to_vec()].concat(),
            409,
            &[],
            vec![Some(Failure::Encoded)],
        ),
        (
            "UID with slash",
            body(&[with_uids([CT, "1/2", "1.2", "1.2.3"])]),
            409,
            &[],
            vec![invalid(SOP_INSTANCE, InvalidUid::InvalidCharacter)],
        ),
        (
            "UID with dots",
            body(&[with_uids([CT, "1", "..", "1.2.3"])]),
            409,
            &[],
            vec![invalid(study, InvalidUid::EmptyComponent)],
        ),
        (
            "UID with NUL",
            body(&[with_uids([CT, "1\0.2", "1.2", "1.2.3"])]),
            409,
            &[],
            vec![invalid(SOP_INSTANCE, InvalidUid::InvalidCharacter)],
        ),
        (
            "UID of 65 characters",
            body(&[with_uids([CT, &long, "1.2", "1.2.3"])]),
            409,
            &[],
            vec![invalid(SOP_INSTANCE, InvalidUid::TooLong)],
        ),
        (
            "no SOP class",
            body(&[File::new(EXPLICIT, "1").without(SOP_CLASS).bytes()]),
            409,
            &[],
            vec![Some(Failure::Missing(SOP_CLASS))],
        ),
        (
            "no preamble",
            body(&[File { prefix: Vec::new(), ..File::new(EXPLICIT, "1") }.bytes()]),
            200,
            &["1"],
            vec![None],
        ),
    ];
    for (case, body, status, stored, failures) in cases {
        let (found_status, objects, found) = outcome(&HEAD, &body);
        assert_eq!((found_status, found), (status, failures), "{case}");
        assert_eq!(
            objects.into_keys().collect::<Vec<_>>(),
            stored.iter().map(|i| name(i)).collect::<Vec<_>>(),
            "{case}"
        );
    }
}

#[test]
fn rejected_requests() {
    let reject = |head: RequestHead<'_>| Receiver::new(&MemorySink::default(), &head).unwrap_err();
    assert_eq!(reject(RequestHead { content_type: None, ..HEAD }).status(), 415);
    assert_eq!(reject(RequestHead { content_type: Some("application/dicom"), ..HEAD }), Rejection::MediaType);
    assert_eq!(reject(RequestHead { content_encoding: Some("gzip"), ..HEAD }).status(), 415);
    assert_eq!(reject(RequestHead { content_type: Some("multipart/related"), ..HEAD }).status(), 400);
    assert_eq!(
        reject(RequestHead { study: Some("1/2"), ..HEAD }),
        Rejection::Study(InvalidUid::InvalidCharacter)
    );
}

#[test]
fn another_study_than_that_of_the_url() {
    let head = RequestHead { study: Some("1.2"), ..HEAD };
    let other = File::with_uids(EXPLICIT, [CT, "2", "1.20", "1.2.3"]).bytes();
    let (status, objects, failures) = outcome(&head, &body(&[file("1"), other]));
    assert_eq!((status, objects.len()), (202, 1));
    assert_eq!(failures, [None, Some(Failure::OtherStudy)]);
}

/// Uploads of one object never overlap, and the later one wins, also if its SOP class differs.
#[test]
fn same_instance_twice() {
    let sink = SlowSink::open();
    let later = File::with_uids(EXPLICIT, ["1.2.840.10008.5.1.4.1.1.4", "1", "1.2", "1.2.3"]).bytes();
    let report = receive(sink.clone(), &HEAD, [&body(&[file("1"), later.clone()])[..]]);
    assert_eq!((report.status(), report.stored()), (200, 2));
    assert_eq!(report.stored_bytes, (file("1").len() + later.len()) as u64);
    let state = sink.state();
    assert_eq!(state.events, ["begin 1", "store 1", "begin 1", "store 1"]);
    assert_eq!(state.objects["1"], later);
}

#[test]
fn failed_uploads() {
    use UploadErrorKind::{Failed, Unavailable};
    let body = body(&[file("1"), file("2"), file("3")]);
    type Failures<'a> = &'a [(&'a str, UploadErrorKind)];
    let cases: [(Failures<'_>, Failures<'_>, u16, &[u16]); 5] = [
        (&[], &[("2", Failed)], 202, &[0x0110]),
        (&[("1", Unavailable)], &[("2", Failed)], 202, &[0xA700, 0x0110]),
        (&[("1", Failed)], &[("2", Failed), ("3", Failed)], 409, &[0x0110; 3]),
        (&[("1", Unavailable), ("2", Unavailable)], &[("3", Unavailable)], 503, &[0xA700; 3]),
        (&[("1", Failed), ("2", Unavailable)], &[("3", Failed)], 503, &[0x0110, 0xA700, 0x0110]),
    ];
    for (refused, failing, status, reasons) in cases {
        let sink = SlowSink::open();
        let owned =
            |list: &[(&str, _)]| list.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        sink.change(|state| (state.refused, state.failing) = (owned(refused), owned(failing)));
        let report = receive(sink.clone(), &HEAD, [&body[..]]);
        assert_eq!(report.status(), status);
        assert_eq!(report.failures().map(|(_, failure)| failure.reason()).collect::<Vec<_>>(), reasons);
        assert_eq!(report.stored(), sink.state().objects.len());
    }
}

/// Instances are uploaded in parallel and while others arrive, up to the limits of the sink.
#[test]
fn slow_sink_slows_the_sender_down() {
    let large = |instance| File::new(EXPLICIT, instance).with_pixels(&vec![5; MAX_HELD]).bytes();
    for (files, uploads) in
        [(vec![file("1"), file("2"), file("3"), file("4")], MAX_UPLOADS), (vec![large("1"), file("2")], 1)]
    {
        let sink = SlowSink::default();
        let request = body(&files);
        let sender = thread::spawn({
            let sink = sink.clone();
            move || receive(sink, &HEAD, request.chunks(1000))
        });
        let state = sink.wait_until(|state| state.blocked == 1);
        assert_eq!((state.uploads, state.objects.len()), (uploads, 0));
        assert!(state.held <= MAX_HELD);
        drop(state);
        sink.change(|state| state.open = true);
        let report = sender.join().unwrap();
        assert_eq!((report.status(), report.stored()), (200, files.len()));
        assert_eq!(sink.state().objects.len(), files.len());
    }
}

/// A body that arrives as one chunk is not copied as a whole before the sink accepts it.
#[test]
fn one_large_chunk_is_passed_on_in_pieces() {
    let sink = SlowSink::default();
    let large = File::new(EXPLICIT, "1").with_pixels(&vec![5; 4 * MAX_HELD]).bytes();
    let request = body(slice::from_ref(&large));
    let sender = thread::spawn({
        let sink = sink.clone();
        move || receive(sink, &HEAD, [&request[..]])
    });
    let state = sink.wait_until(|state| state.blocked == 1);
    assert!(state.held > 0 && state.held <= MAX_HELD);
    drop(state);
    sink.change(|state| state.open = true);
    assert_eq!(sender.join().unwrap().status(), 200);
    assert_eq!(sink.state().objects["1"], large);
}

/// What was complete is stored, and the rest leaves nothing behind.
#[test]
fn client_that_disappears() {
    let sink = SlowSink::default();
    let request = body(&[file("1"), file("2")]);
    let mut receiver = Receiver::new(sink.clone(), &HEAD).unwrap();
    receiver.push(&request[..request.len() - 20]);
    drop(receiver);
    sink.change(|state| state.open = true);
    let mut state = sink.wait_until(|state| state.uploads == 0);
    state.events.sort();
    assert_eq!(state.events, ["abort 2", "begin 1", "begin 2", "store 1"]);
    assert_eq!((state.objects.len(), state.held), (1, 0));
}

/// An upload does not stay open while the rest of a malformed body is ignored.
#[test]
fn malformed_body_aborts_the_upload_at_once() {
    let sink = SlowSink::open();
    let mut receiver = Receiver::new(sink.clone(), &HEAD).unwrap();
    receiver.push(&body(&[file("1")]).replace(b"--cut--", b"--cut!!"));
    assert_eq!(sink.wait_until(|state| state.uploads == 0).events, ["begin 1", "abort 1"]);
    receiver.push(b"more");
    let report = receiver.finish();
    assert_eq!((report.malformed, report.status()), (Some(Malformed::Boundary), 400));
}

#[test]
fn number_of_parts_is_limited() {
    let sink = MemorySink::default();
    let mut receiver = Receiver::new(&sink, &HEAD).unwrap();
    let parts = part("", b"").repeat(1000);
    (0..102).for_each(|_| receiver.push(&parts));
    let report = receiver.finish();
    assert_eq!(report.outcomes.len(), super::MAX_PARTS + 1);
    assert!(matches!(report.failures().last(), Some((100_001, Failure::TooManyParts(_)))));
}

trait Replace {
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl Replace for Vec<u8> {
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut replaced = self.clone();
        let found: Vec<_> = memchr::memmem::find_iter(self, from).collect();
        found.into_iter().for_each(|at| replaced[at..at + to.len()].copy_from_slice(to));
        replaced
    }
}

#[test]
fn every_position_of_a_cut_gives_the_same_result() {
    let other = File::with_uids(EXPLICIT, [CT, "2", "1/2", "1.2.3"]).bytes();
    let big =
        File::new(BIG_ENDIAN, "3").insert(element(BIG_ENDIAN, Tag(0x0011, 0x1001), "OB", vec![9; 5000]));
    let small = File::new(EXPLICIT, "1").bytes();
    let request = body(&[small, other, b"hello".to_vec(), big.with_pixels(b"\r\n--cu").bytes()]);
    let whole = outcome(&HEAD, &request);
    assert_eq!((whole.0, whole.1.len(), whole.2.len()), (202, 2, 4));
    for at in 0..=request.len() {
        let sink = MemorySink::default();
        let (first, second) = request.split_at(at);
        let report = receive(&sink, &HEAD, [first, second]);
        assert_eq!((report.status(), report.failures().count()), (202, 2), "{at}");
        let objects = sink.objects();
        assert!(
            objects
                .iter()
                .map(|(name, content)| (name, &content[..]))
                .eq(whole.1.iter().map(|(name, content)| (name, &content[..]))),
            "{at}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_do_not_matter(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        sizes in prop::collection::vec(1_usize..200, 1..6),
        cut in 0_usize..2000,
    ) {
        let small = File::new(EXPLICIT, "1").bytes();
        let mut request = body(&[small.clone(), File::new(DEFLATED, "2").bytes(), small]);
        for (at, value) in changes {
            let at = at.index(request.len());
            request[at] = value;
        }
        if cut < request.len() {
            request.truncate(cut.max(request.len() / 2));
        }
        let whole_sink = MemorySink::default();
        let whole = receive(&whole_sink, &HEAD, [&request[..]]);
        let sink = MemorySink::default();
        let report = receive(&sink, &HEAD, chunks(&request, &sizes));
        prop_assert_eq!(report.outcomes, whole.outcomes);
        prop_assert_eq!(report.malformed, whole.malformed);
        prop_assert_eq!(sink.objects(), whole_sink.objects());
    }
}

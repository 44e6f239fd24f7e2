use bytes::Bytes;
use dicom_core::{Tag, VR, dicom_value};
use dicom_object::meta::FileMetaTableBuilder;
use dicom_object::{InMemDicomObject, mem::InMemElement};
use proptest::prelude::*;

use super::{
    HEADER_LIMIT, HeaderReader, Reference, SERIES, SOP_CLASS, SOP_INSTANCE, STUDY, TRANSFER_SYNTAX,
    Unreadable,
};
use crate::failure::Failure;
use crate::sink::Instance;
use crate::test_files::{
    BIG_ENDIAN, CT, DEFLATED, EXPLICIT, File, IMPLICIT, JPEG, chunks, element, element_of_length, sequence,
};
use crate::uid::{InvalidUid, Uid};

const PRIVATE: Tag = Tag(0x0011, 0x1001);

/// The instance, after checking that the file is passed on unchanged.
fn read_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Instance, Unreadable> {
    let mut reader = HeaderReader::new();
    let mut given = Vec::new();
    for chunk in chunks {
        given.extend_from_slice(chunk);
        if let Some((instance, pieces)) = reader.push(Bytes::copy_from_slice(chunk))? {
            assert_eq!([pieces.first, pieces.second].concat(), given);
            return Ok(instance);
        }
    }
    let (instance, held) = reader.finish()?;
    assert_eq!(held, given);
    Ok(instance)
}

fn read(file: &[u8]) -> Result<Instance, Unreadable> {
    read_chunks([file])
}

fn failure(file: &[u8]) -> Failure {
    read(file).unwrap_err().failure
}

fn uid(text: &str) -> Uid {
    Uid::parse(text.as_bytes()).unwrap()
}

fn expected() -> Instance {
    Instance { study: uid("1.2"), series: uid("1.2.3"), sop_instance: uid("1.2.3.4"), sop_class: uid(CT) }
}

#[test]
fn transfer_syntaxes() {
    for syntax in [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, JPEG, "1.2.840.113619.5.2.1"] {
        assert_eq!(read(&File::new(syntax, "1.2.3.4").bytes()), Ok(expected()), "{syntax}");
    }
}

/// Files of another implementation, whose encoder shares nothing with the builder of these tests.
#[test]
fn files_of_dicom_object() {
    for syntax in [IMPLICIT, EXPLICIT, BIG_ENDIAN] {
        let item = InMemDicomObject::from_element_iter([
            InMemElement::new(SOP_INSTANCE, VR::UI, dicom_value!(Str, "9.9")),
            InMemElement::new(STUDY, VR::UI, dicom_value!(Str, "9.9")),
        ]);
        let object = InMemDicomObject::from_element_iter([
            InMemElement::new(SOP_CLASS, VR::UI, dicom_value!(Str, CT)),
            InMemElement::new(SOP_INSTANCE, VR::UI, dicom_value!(Str, "1.2.3.4")),
            InMemElement::new(
                Tag(0x0008, 0x1140),
                VR::SQ,
                dicom_core::value::DataSetSequence::from(vec![item]),
            ),
            InMemElement::new(STUDY, VR::UI, dicom_value!(Str, "1.2")),
            InMemElement::new(SERIES, VR::UI, dicom_value!(Str, "1.2.3")),
        ]);
        let file = object.with_meta(FileMetaTableBuilder::new().transfer_syntax(syntax)).unwrap();
        let mut bytes = Vec::new();
        file.write_all(&mut bytes).unwrap();
        assert_eq!(read(&bytes), Ok(expected()), "{syntax}");
    }
}

#[test]
fn sequences_before_the_uids() {
    for syntax in [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN] {
        let decoy =
            [element(syntax, SOP_INSTANCE, "UI", "9.9"), element(syntax, SERIES, "UI", "9.9")].concat();
        let nested = sequence(syntax, Tag(0x0008, 0x1140), "SQ", &[decoy.clone(), Vec::new()]);
        let defined =
            element(syntax, Tag(0x0008, 0x1115), "SQ", element(syntax, Tag(0xFFFE, 0xE000), "", &decoy));
        let file = File::new(syntax, "1.2.3.4")
            .insert(sequence(syntax, Tag(0x0011, 0x1010), "SQ", &[nested, decoy.clone()]))
            .insert(defined);
        assert_eq!(read(&file.bytes()), Ok(expected()), "{syntax}");
    }
}

/// The content of a sequence with VR UN is in implicit VR little-endian, also where the file is not.
#[test]
fn sequences_of_unknown_vr() {
    for syntax in [EXPLICIT, BIG_ENDIAN] {
        let inner = sequence(IMPLICIT, Tag(0x0011, 0x1002), "SQ", &[element(IMPLICIT, SERIES, "UI", "9.9")]);
        let unknown = sequence(syntax, PRIVATE, "UN", &[inner]);
        let known = sequence(syntax, Tag(0x0011, 0x1003), "SQ", std::slice::from_ref(&unknown));
        let file = File::new(syntax, "1.2.3.4").insert(known).insert(unknown);
        assert_eq!(read(&file.bytes()), Ok(expected()), "{syntax}");
    }
}

#[test]
fn deviations_that_are_accepted() {
    let good = File::new(EXPLICIT, "1.2.3.4");
    let without_preamble = File { prefix: Vec::new(), ..good.clone() };
    let magic_only = File { prefix: b"DICM".to_vec(), ..good.clone() };
    let meta_in_preamble = File { prefix: [&[2; 128][..], b"DICM"].concat(), ..good.clone() };
    let no_media_storage = File { meta: good.meta[3..].to_vec(), ..good.clone() };
    // Declared as explicit VR.
    let implicit = File { meta: good.meta.clone(), ..File::new(IMPLICIT, "1.2.3.4") };
    let spaces = File::with_uids(EXPLICIT, [CT, "1.2.3.4 ", "1.2 ", "1.2.3 "]);
    for file in [without_preamble, magic_only, meta_in_preamble, no_media_storage, implicit, spaces] {
        assert_eq!(read(&file.bytes()), Ok(expected()), "{file:?}");
    }
    let mut wrong_group_length = good.bytes();
    wrong_group_length[140..144].copy_from_slice(&7_u32.to_le_bytes());
    assert_eq!(read(&wrong_group_length), Ok(expected()));
}

#[test]
fn files_that_are_not_dicom() {
    assert_eq!(failure(b""), Failure::NotDicom);
    assert_eq!(failure(b"hello"), Failure::NotDicom);
    assert_eq!(failure(&[0; 200]), Failure::NotDicom);
    assert_eq!(failure(&vec![b'x'; 3 * HEADER_LIMIT]), Failure::NotDicom);
    // A data set without file meta information.
    assert_eq!(failure(&File::new(IMPLICIT, "1").data_set.concat()), Failure::NotDicom);
}

#[test]
fn headers_that_cannot_be_read() {
    let good = File::new(EXPLICIT, "1.2.3.4");
    let bytes = good.bytes();
    let end = bytes.len() - element(EXPLICIT, SERIES, "UI", "1.2.3").len() - 86;
    assert_eq!(failure(&bytes[..end]), Failure::HeaderTruncated);
    assert_eq!(failure(&bytes[..131]), Failure::NotDicom);
    assert_eq!(failure(&bytes[..140]), Failure::HeaderTruncated);
    let no_syntax = File { meta: good.meta[..3].to_vec(), ..good.clone() };
    assert_eq!(failure(&no_syntax.bytes()), Failure::Missing(TRANSFER_SYNTAX));
    for tag in [SOP_CLASS, SOP_INSTANCE, STUDY, SERIES] {
        assert_eq!(failure(&good.clone().without(tag).bytes()), Failure::Missing(tag));
    }
    let repeated = good.clone().insert(element(EXPLICIT, SOP_INSTANCE, "UI", "9"));
    assert_eq!(failure(&repeated.bytes()), Failure::Repeated(SOP_INSTANCE));
    for (index, element_number, tag) in [(1, 2, SOP_CLASS), (2, 3, SOP_INSTANCE)] {
        let mut other = good.clone();
        other.meta[index] = element(EXPLICIT, Tag(2, element_number), "UI", "9.9");
        assert_eq!(failure(&other.bytes()), Failure::Contradiction(tag));
    }
    let stray = sequence(EXPLICIT, PRIVATE, "SQ", &[]);
    let item_end = element(EXPLICIT, Tag(0xFFFE, 0xE00D), "", b"");
    let stray_end = [&stray[..12], &item_end[..]].concat();
    assert!(matches!(failure(&good.clone().insert(stray_end).bytes()), Failure::Header(_)));
    let no_item = [&stray[..12], &element(EXPLICIT, Tag(0x0010, 0x0010), "PN", "a")[..]].concat();
    assert!(matches!(failure(&good.clone().insert(no_item).bytes()), Failure::Header(_)));
    let mut damaged = File::new(DEFLATED, "1.2.3.4").bytes();
    let start = damaged.len() - 20;
    damaged[start - 100..start].fill(0xFF);
    assert_eq!(failure(&damaged), Failure::Deflate);
}

#[test]
fn invalid_uids() {
    let long = "1".repeat(65);
    for (value, reason) in [
        ("1/2", InvalidUid::InvalidCharacter),
        ("..", InvalidUid::EmptyComponent),
        ("1\0.2", InvalidUid::InvalidCharacter),
        ("1\\2", InvalidUid::InvalidCharacter),
        (&long, InvalidUid::TooLong),
        (&"1".repeat(3000), InvalidUid::TooLong),
    ] {
        for (index, tag) in [SOP_CLASS, SOP_INSTANCE, STUDY, SERIES].into_iter().enumerate() {
            let mut uids = [CT, "1.2.3.4", "1.2", "1.2.3"];
            uids[index] = value;
            let error = read(&File::with_uids(EXPLICIT, uids).bytes()).unwrap_err();
            assert_eq!(error.failure, Failure::InvalidUid { tag, reason }, "{value:?}");
            assert_eq!(error.reference.is_some(), index >= 2, "{tag}");
        }
    }
    let empty = File::with_uids(EXPLICIT, [CT, "1.2.3.4", "", "1.2.3"]);
    assert_eq!(failure(&empty.bytes()), Failure::Missing(STUDY));
}

/// The lengths in a file are not believed: nothing is allocated or awaited for them.
#[test]
fn hostile_lengths() {
    for syntax in [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED] {
        for len in [u32::MAX - 1, 1 << 31, 1 << 20] {
            let file =
                File::new(syntax, "1.2.3.4").insert(element_of_length(syntax, PRIVATE, "OB", len, b""));
            assert_eq!(failure(&file.bytes()), Failure::HeaderTooLarge, "{syntax} {len}");
        }
    }
    let series = element_of_length(EXPLICIT, SERIES, "UN", u32::MAX, b"");
    assert!(matches!(
        failure(&File::new(EXPLICIT, "1").without(SERIES).insert(series).bytes()),
        Failure::Header(_)
    ));
    // Sequences in sequences, up to the limit.
    let open = [
        sequence(IMPLICIT, PRIVATE, "SQ", &[])[..8].to_vec(),
        vec![0xFE, 0xFF, 0, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF],
    ];
    let deep = File::new(IMPLICIT, "1.2.3.4").insert(open.concat().repeat(HEADER_LIMIT / 16));
    assert_eq!(failure(&deep.bytes()), Failure::HeaderTooLarge);
    // A bomb: a gigabyte of zeros would be a megabyte of deflated data.
    let bomb =
        File::new(DEFLATED, "1.2.3.4").insert(element(DEFLATED, PRIVATE, "OB", vec![0; 2 * HEADER_LIMIT]));
    assert!(bomb.bytes().len() < 8192);
    assert_eq!(failure(&bomb.bytes()), Failure::HeaderTooLarge);
}

#[test]
fn large_headers() {
    for syntax in [EXPLICIT, DEFLATED] {
        let mut random = 1_u32;
        let noise = (0..HEADER_LIMIT - 2000).map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        });
        let file =
            File::new(syntax, "1.2.3.4").insert(element(syntax, PRIVATE, "OB", noise.collect::<Vec<_>>()));
        let mut bytes = file.bytes();
        assert_eq!(read(&bytes), Ok(expected()));
        bytes.extend_from_slice(&vec![0; HEADER_LIMIT]);
        assert_eq!(read_chunks(bytes.chunks(10_000)), Ok(expected()));
    }
}

/// The reference of a failed instance falls back to the file meta information.
#[test]
fn references_of_failed_instances() {
    let good = File::new(EXPLICIT, "1.2.3.4");
    let reference = read(&good.clone().without(SOP_CLASS).bytes()).unwrap_err().reference.unwrap();
    assert_eq!(reference, Reference { sop_class: uid(CT), sop_instance: uid("1.2.3.4") });
    let mut truncated = good.clone();
    truncated.data_set.truncate(4);
    truncated.meta.drain(1..3);
    let error = read(&truncated.bytes()).unwrap_err();
    assert_eq!((error.failure, error.reference), (Failure::HeaderTruncated, Some(reference.clone())));
    let no_meta = File { meta: good.meta[3..].to_vec(), ..good };
    assert_eq!(read(&no_meta.without(SOP_CLASS).bytes()).unwrap_err().reference, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damaged files of all kinds: no panic, and the same result however they arrive.
    #[test]
    fn chunks_do_not_matter(
        syntax in prop::sample::select(vec![IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN]),
        filler in 0_usize..9000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..3000, 1..6),
    ) {
        let inner = sequence(syntax, Tag(0x0008, 0x1140), "SQ", &[element(syntax, STUDY, "UI", "9")]);
        let file = File::new(syntax, "1.2.3.4")
            .insert(sequence(syntax, PRIVATE, "SQ", &[inner]))
            .insert(element(syntax, PRIVATE, "OB", vec![1; filler]));
        let mut bytes = file.bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 4);
        let whole = read(&bytes);
        prop_assert_eq!(read_chunks(chunks(&bytes, &sizes)), whole);
    }
}

//! Generated DICOM files: valid, deterministic, and without data of real patients.
//!
//! Explicit VR little endian, uncompressed. The 16-bit grey values look like a body and contain noise, so
//! that files neither compress to nothing nor repeat. All UIDs are UUID-derived (DICOM PS3.5, B.2).

mod labels;
mod pixels;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

pub use self::labels::Labels;
use self::pixels::Phantom;

/// Number of rows and of columns of a frame of [`multi_frame`]: half a mebibyte.
const FRAME_SIDE: u16 = 512;
const FRAME_BYTES: u32 = 2 * FRAME_SIDE as u32 * FRAME_SIDE as u32;

/// A generated study. Studies with different numbers share no UID; the same number always gives the same
/// bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Study(pub u64);

/// [`Study::ct_series`] of study 0.
pub fn ct_series(count: u32, rows: u16, columns: u16) -> CtSeries {
    Study::default().ct_series(count, rows, columns)
}

/// [`Study::multi_frame`] of study 0.
pub fn multi_frame(megabytes: u32) -> Result<Vec<u8>> {
    Study::default().multi_frame(megabytes)
}

/// Writes the files of study 0, a series of 256×256 slices and a multi-frame, to a folder and returns their
/// paths.
pub fn write_study(folder: &Path, slices: u32, multi_frame_megabytes: u32) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (index, slice) in ct_series(slices, 256, 256).enumerate() {
        let file = folder.join(format!("ct-{index:04}.dcm"));
        fs::write(&file, slice?)?;
        files.push(file);
    }
    if multi_frame_megabytes > 0 {
        let file = folder.join("multi-frame.dcm");
        fs::write(&file, multi_frame(multi_frame_megabytes)?)?;
        files.push(file);
    }
    Ok(files)
}

/// Returns the UIDs of a file: study, series and instance.
pub fn uids(file: &[u8]) -> Result<[String; 3]> {
    let object = dicom_object::from_reader(file)?;
    let uid =
        |tag| -> Result<String> { Ok(object.element(tag)?.to_str()?.trim_end_matches('\0').to_owned()) };
    Ok([uid(tags::STUDY_INSTANCE_UID)?, uid(tags::SERIES_INSTANCE_UID)?, uid(tags::SOP_INSTANCE_UID)?])
}

impl Study {
    /// A CT series of `count` slices. A file has 2 × rows × columns bytes of pixels and about 1 kB of
    /// header: 132 kB for 256×256, 525 kB for 512×512.
    pub fn ct_series(self, count: u32, rows: u16, columns: u16) -> CtSeries {
        CtSeries { study: self, next: 0, count, phantom: Phantom::new(rows, columns) }
    }

    /// One grey-scale multi-frame secondary capture of `megabytes` × 1 000 000 bytes, rounded up to whole
    /// frames of 512×512 (0.52 MB).
    pub fn multi_frame(self, megabytes: u32) -> Result<Vec<u8>> {
        let frames = (u64::from(megabytes) * 1_000_000).div_ceil(u64::from(FRAME_BYTES)).max(1);
        let phantom = Phantom::new(FRAME_SIDE, FRAME_SIDE);
        let pixels =
            (0..frames).flat_map(|frame| phantom.slice(self.number(UidKind::Frames, frame))).collect();
        let mut data_set =
            self.common(uids::MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE, "OT");
        put(&mut data_set, tags::SOP_INSTANCE_UID, VR::UI, self.uid(UidKind::MultiFrame, 0));
        put(&mut data_set, tags::SERIES_INSTANCE_UID, VR::UI, self.uid(UidKind::Series, 2));
        put(&mut data_set, tags::SERIES_NUMBER, VR::IS, "2");
        put(&mut data_set, tags::SERIES_DESCRIPTION, VR::LO, "Generated multi-frame");
        put(&mut data_set, tags::INSTANCE_NUMBER, VR::IS, "1");
        put(&mut data_set, tags::CONVERSION_TYPE, VR::CS, "SYN");
        put(&mut data_set, tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
        put(&mut data_set, tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY");
        put(&mut data_set, tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string());
        put(&mut data_set, tags::FRAME_INCREMENT_POINTER, VR::AT, PrimitiveValue::from(tags::FRAME_TIME));
        put(&mut data_set, tags::FRAME_TIME, VR::DS, "40");
        put_pixels(&mut data_set, &phantom, pixels);
        encode(data_set)
    }

    fn ct_slice(self, phantom: &Phantom, index: u32) -> Result<Vec<u8>> {
        let mut data_set = self.common(uids::CT_IMAGE_STORAGE, "CT");
        let position = f64::from(index) * 1.25;
        put(&mut data_set, tags::SOP_INSTANCE_UID, VR::UI, self.uid(UidKind::Slice, index.into()));
        put(&mut data_set, tags::SERIES_INSTANCE_UID, VR::UI, self.uid(UidKind::Series, 1));
        put(&mut data_set, tags::FRAME_OF_REFERENCE_UID, VR::UI, self.uid(UidKind::FrameOfReference, 0));
        put(&mut data_set, tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
        put(&mut data_set, tags::IMAGE_TYPE, VR::CS, r"ORIGINAL\PRIMARY\AXIAL");
        put(&mut data_set, tags::SERIES_NUMBER, VR::IS, "1");
        put(&mut data_set, tags::SERIES_DESCRIPTION, VR::LO, "Generated CT");
        put(&mut data_set, tags::INSTANCE_NUMBER, VR::IS, (index + 1).to_string());
        put(&mut data_set, tags::ACQUISITION_NUMBER, VR::IS, "1");
        put(&mut data_set, tags::KVP, VR::DS, "120");
        put(&mut data_set, tags::SLICE_THICKNESS, VR::DS, "1.25");
        put(&mut data_set, tags::PIXEL_SPACING, VR::DS, r"0.7\0.7");
        put(&mut data_set, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, r"1\0\0\0\1\0");
        put(&mut data_set, tags::IMAGE_POSITION_PATIENT, VR::DS, format!(r"-100\-100\{position:.2}"));
        put_pixels(&mut data_set, phantom, phantom.slice(self.number(UidKind::Slice, index.into())));
        encode(data_set)
    }

    /// The attributes that all files of the study share.
    fn common(self, sop_class: &str, modality: &str) -> InMemDicomObject {
        let mut data_set = InMemDicomObject::new_empty();
        put(&mut data_set, tags::SOP_CLASS_UID, VR::UI, sop_class);
        put(&mut data_set, tags::STUDY_INSTANCE_UID, VR::UI, self.uid(UidKind::Study, 0));
        put(&mut data_set, tags::MODALITY, VR::CS, modality);
        put(&mut data_set, tags::PATIENT_NAME, VR::PN, "DEMO^PATIENT");
        put(&mut data_set, tags::PATIENT_ID, VR::LO, format!("DEMO-{}", self.0));
        put(&mut data_set, tags::PATIENT_BIRTH_DATE, VR::DA, "19700101");
        put(&mut data_set, tags::PATIENT_SEX, VR::CS, "O");
        put(&mut data_set, tags::STUDY_DATE, VR::DA, "20240101");
        put(&mut data_set, tags::STUDY_TIME, VR::TM, "120000");
        put(&mut data_set, tags::STUDY_ID, VR::SH, self.0.to_string());
        put(&mut data_set, tags::STUDY_DESCRIPTION, VR::LO, "Generated study");
        put(&mut data_set, tags::ACCESSION_NUMBER, VR::SH, "");
        put(&mut data_set, tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
        put(&mut data_set, tags::MANUFACTURER, VR::LO, "end-to-end");
        data_set
    }

    fn uid(self, kind: UidKind, index: u64) -> String {
        let high = self.number(kind, index);
        let low = pixels::mix(high ^ 0x5DEE_CE66_D1CE_4E5B);
        let random = (u128::from(high) << 64) | u128::from(low);
        // The bits of a UUID of version 8 (RFC 9562: custom content).
        let version = (random & !(0xF << 76)) | (0x8 << 76);
        let uuid = (version & !(0b11 << 62)) | (0b10 << 62);
        format!("2.25.{uuid}")
    }

    /// A number that looks random and differs for every study, kind and index.
    fn number(self, kind: UidKind, index: u64) -> u64 {
        pixels::mix(pixels::mix(pixels::mix(self.0) ^ kind as u64) ^ index)
    }
}

#[derive(Clone, Copy)]
enum UidKind {
    Study = 1,
    Series,
    FrameOfReference,
    Slice,
    MultiFrame,
    Frames,
}

/// Iterator over the files of a CT series. See [`Study::ct_series`].
#[derive(Clone, Debug)]
pub struct CtSeries {
    study: Study,
    next: u32,
    count: u32,
    phantom: Phantom,
}

impl Iterator for CtSeries {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.count).then(|| {
            self.next += 1;
            self.study.ct_slice(&self.phantom, self.next - 1)
        })
    }
}

fn put(data_set: &mut InMemDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    let value: PrimitiveValue = value.into();
    data_set.put(DataElement::new(tag, vr, value));
}

fn put_pixels(data_set: &mut InMemDicomObject, phantom: &Phantom, pixels: Vec<u16>) {
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, phantom.rows()),
        (tags::COLUMNS, phantom.columns()),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, pixels::BITS),
        (tags::HIGH_BIT, pixels::BITS - 1),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put(data_set, tag, VR::US, PrimitiveValue::from(value));
    }
    put(data_set, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    put(data_set, tags::RESCALE_INTERCEPT, VR::DS, "-1024");
    put(data_set, tags::RESCALE_SLOPE, VR::DS, "1");
    put(data_set, tags::RESCALE_TYPE, VR::LO, "HU");
    put(data_set, tags::WINDOW_CENTER, VR::DS, "40");
    put(data_set, tags::WINDOW_WIDTH, VR::DS, "400");
    put(data_set, tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into()));
}

fn encode(data_set: InMemDicomObject) -> Result<Vec<u8>> {
    // The builder takes class and instance from the data set.
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut bytes = Vec::new();
    data_set.with_meta(meta)?.write_all(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn instance_uid(bytes: &[u8]) -> String {
        let file = dicom_object::from_reader(bytes).unwrap();
        file.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap().into_owned()
    }

    #[test]
    fn files_have_the_requested_size() {
        let slice = ct_series(1, 256, 256).next().unwrap().unwrap();
        assert!((131_072..133_000).contains(&slice.len()), "{}", slice.len());
        let frames = multi_frame(10).unwrap();
        assert!((10_000_000..10_530_000).contains(&frames.len()), "{}", frames.len());
    }

    #[test]
    fn studies_are_deterministic_and_share_no_uids() {
        let files = |study: Study| -> Vec<Vec<u8>> {
            let slices = study.ct_series(20, 32, 16).map(Result::unwrap);
            slices.chain([study.multi_frame(1).unwrap()]).collect()
        };
        assert_eq!(files(Study(7)), files(Study(7)));
        let uids = |study| files(study).iter().map(|file| instance_uid(file)).collect::<HashSet<_>>();
        assert_eq!(uids(Study(7)).len(), 21);
        assert!(uids(Study(7)).is_disjoint(&uids(Study(8))));
    }

    #[test]
    fn uids_are_valid_uuids() {
        for index in 0..1000 {
            let uid = Study(3).uid(UidKind::Slice, index);
            let uuid: u128 = uid.strip_prefix("2.25.").unwrap().parse().unwrap();
            assert!(uid.len() <= 64);
            assert_eq!((uuid >> 76) & 0xF, 8, "version");
            assert_eq!((uuid >> 62) & 0b11, 0b10, "variant");
        }
    }

    #[test]
    fn slices_differ_by_noise() {
        let phantom = Phantom::new(64, 64);
        let one = phantom.slice(1);
        let other = phantom.slice(2);
        let equal = one.iter().zip(&other).filter(|(one, other)| one == other).count();
        assert!(equal < one.len() / 10, "{equal} of {} pixels are equal", one.len());
        assert!(one.iter().all(|pixel| *pixel < 1 << pixels::BITS));
    }
}

//! What identifies a study for people.

use anyhow::Result;
use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::put;

/// The attributes that a study is searched by. A field that is an empty text is an attribute without a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// The patient's name, in the components of DICOM: `DOE^JANE`.
    pub patient_name: &'a str,
    /// The patient's ID. Orthanc takes studies with the same one for those of the same patient.
    pub patient_id: &'a str,
    /// The accession number.
    pub accession: &'a str,
    /// The date of the study: `20240101`.
    pub date: &'a str,
    /// The description of the study.
    pub description: &'a str,
}

impl Labels<'_> {
    /// Returns a copy of a DICOM file with these labels, in UTF-8. Its UIDs stay the same.
    pub fn apply(&self, file: &[u8]) -> Result<Vec<u8>> {
        let mut object = dicom_object::from_reader(file)?;
        for (tag, vr, value) in [
            (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
            (tags::PATIENT_NAME, VR::PN, self.patient_name),
            (tags::PATIENT_ID, VR::LO, self.patient_id),
            (tags::ACCESSION_NUMBER, VR::SH, self.accession),
            (tags::STUDY_DATE, VR::DA, self.date),
            (tags::STUDY_DESCRIPTION, VR::LO, self.description),
        ] {
            put(&mut object, tag, vr, value);
        }
        let mut bytes = Vec::new();
        object.write_all(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::{ct_series, uids};

    #[test]
    fn labels_replace_those_of_a_file() {
        let file = ct_series(1, 16, 16).next().unwrap().unwrap();
        let labels = Labels { patient_name: "Müller^Jörg", patient_id: "7", ..Labels::default() };
        let labelled = labels.apply(&file).unwrap();
        let object = dicom_object::from_reader(&labelled[..]).unwrap();
        assert_eq!(object.element(tags::PATIENT_NAME).unwrap().to_str().unwrap(), "Müller^Jörg");
        assert_eq!(object.element(tags::STUDY_DATE).unwrap().to_str().unwrap(), "");
        assert_eq!(uids(&labelled).unwrap(), uids(&file).unwrap());
        assert!(labelled.windows(2).any(|bytes| bytes == "ü".as_bytes()));
    }
}

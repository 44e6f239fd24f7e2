//! The studies, with the numbers of files and bytes that are published for the C++ plugins.

use std::fs;

use anyhow::Result;
use real_orthanc::dicom::Study;
use tempfile::TempDir;
use xtask::options::cloud::Workload;

/// A study whose files all have the same size.
#[derive(Clone, Copy, Debug)]
struct Shape {
    title: &'static str,
    files: u32,
    /// Rows and columns of each image.
    side: u16,
}

fn shape(workload: Workload) -> Shape {
    match workload {
        Workload::Mammo => Shape { title: "MAMMO", files: 8, side: 7301 },
        Workload::Cardio => Shape { title: "CARDIO", files: 26, side: 2197 },
        Workload::Onco => Shape { title: "ONCO", files: 1635, side: 329 },
    }
}

/// The files of a study, generated before anything is measured, since the clients share the processor with Orthanc.
pub(super) struct Files {
    pub(super) title: &'static str,
    pub(super) bytes: Vec<Vec<u8>>,
    /// The same files for programs that read them from a folder.
    pub(super) folder: Option<TempDir>,
}

impl Files {
    pub(super) fn generate(workload: Workload, needs_folder: bool) -> Result<Self> {
        let Shape { title, files, side } = shape(workload);
        let bytes = Study(workload as u64 + 10).ct_series(files, side, side).collect::<Result<Vec<_>>>()?;
        let folder = needs_folder.then(tempfile::tempdir).transpose()?;
        if let Some(folder) = &folder {
            for (index, file) in bytes.iter().enumerate() {
                fs::write(folder.path().join(format!("{index:04}.dcm")), file)?;
            }
        }
        Ok(Self { title, bytes, folder })
    }

    /// Bytes of all files.
    pub(super) fn total(&self) -> usize {
        self.bytes.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use xtask::options::cloud::Choice;

    use super::*;

    #[test]
    fn studies_have_the_published_sizes() {
        // Without the header of a file, which has about 1 kB.
        let megabytes = |workload: &Workload| {
            let Shape { files, side, .. } = shape(*workload);
            let pixels = 2 * u64::from(side) * u64::from(side);
            (files, (u64::from(files) * (pixels + 1000) + 500_000) / 1_000_000)
        };
        let sizes: Vec<_> = Workload::ALL.iter().map(megabytes).collect();
        assert_eq!(sizes, [(8, 853), (26, 251), (1635, 356)]);
    }
}

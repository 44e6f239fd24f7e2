//! Whose cloud this machine is in.
//!
//! Every cloud answers requests for credentials at an address that does not exist elsewhere. Not reaching it means that the
//! service is down for now, or that this is no machine of the cloud, which the kind of failure does not tell: networks
//! refuse, drop or redirect such requests as they like. The firmware tells, without a request.

use std::path::Path;

/// Where Linux shows what the firmware says of the machine.
const FIRMWARE: &str = "/sys/class/dmi/id";

/// A cloud, by its virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudMachine {
    /// Amazon EC2.
    Aws,
    /// Azure.
    Azure,
    /// Google Compute Engine.
    Google,
}

impl CloudMachine {
    /// Whether this is such a machine. Containers see the firmware, too. `None` if it cannot be read: on other systems than
    /// Linux, and in some sandboxes.
    pub fn is_this(self) -> Option<bool> {
        self.is_shown_in(Path::new(FIRMWARE))
    }

    fn is_shown_in(self, firmware: &Path) -> Option<bool> {
        let is_readable = ["sys_vendor", "product_name"].iter().any(|file| {
            std::fs::read_to_string(firmware.join(file)).is_ok_and(|text| !text.trim().is_empty())
        });
        if self.is_described_in(firmware) { Some(true) } else { is_readable.then_some(false) }
    }

    fn is_described_in(self, firmware: &Path) -> bool {
        let is = |file: &str, expected: fn(&str) -> bool| {
            std::fs::read_to_string(firmware.join(file)).is_ok_and(|text| expected(text.trim()))
        };
        match self {
            // The second one is of machines on Xen.
            Self::Aws => {
                is("sys_vendor", |text| text == "Amazon EC2")
                    || is("bios_version", |text| text.ends_with("amazon"))
            }
            // The manufacturer, Microsoft, is also that of Hyper-V in a hospital's cellar.
            Self::Azure => is("chassis_asset_tag", |text| text == "7783-7084-3265-9085-8269-3286-77"),
            Self::Google => is("product_name", |text| matches!(text, "Google" | "Google Compute Engine")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_tells_the_cloud() {
        const ALL: [CloudMachine; 3] = [CloudMachine::Aws, CloudMachine::Azure, CloudMachine::Google];
        for (files, expected) in [
            (&[][..], None),
            (&[("sys_vendor", "Amazon EC2\n")][..], Some(CloudMachine::Aws)),
            (&[("sys_vendor", "Xen\n"), ("bios_version", "4.11.amazon\n")], Some(CloudMachine::Aws)),
            (
                &[
                    ("sys_vendor", "Microsoft Corporation\n"),
                    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n"),
                ],
                Some(CloudMachine::Azure),
            ),
            (&[("sys_vendor", "Microsoft Corporation\n"), ("chassis_asset_tag", "5208-0322\n")], None),
            (
                &[("sys_vendor", "Google\n"), ("product_name", "Google Compute Engine\n")],
                Some(CloudMachine::Google),
            ),
            (
                &[("sys_vendor", "QEMU\n"), ("product_name", "Standard PC\n"), ("bios_version", "1.16\n")],
                None,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in files {
                std::fs::write(folder.path().join(name), content).unwrap();
            }
            let found: Vec<_> =
                ALL.into_iter().filter(|cloud| cloud.is_described_in(folder.path())).collect();
            assert_eq!(found, Vec::from_iter(expected), "{files:?}");
            // Nothing is known without firmware.
            let other = (!files.is_empty()).then_some(false);
            for cloud in ALL {
                let expected = if Some(cloud) == expected { Some(true) } else { other };
                assert_eq!(cloud.is_shown_in(folder.path()), expected, "{cloud:?} {files:?}");
            }
        }
    }
}

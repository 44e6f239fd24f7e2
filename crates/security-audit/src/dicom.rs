//! Orthanc's DICOM server.

use crate::facts::Facts;
use crate::finding::{Area, Finding, Severity};
use crate::modalities;
use crate::options::Options;

const AREA: Area = Area::Dicom;
/// `DicomTlsMinimumProtocolVersion` for TLS 1.2. Below, only 0 is safe: the profile BCP 195.
const TLS_1_2: u64 = 4;
/// The value of all checks if the server is off.
const OFF: &str = "without effect, since the DICOM server is off";

/// A flag: id, option, default, the unsafe value, its severity, and what to do.
type Flag = (&'static str, &'static str, bool, bool, Severity, &'static str);

const ALWAYS_ALLOWED: &str = "set it to false, so that only the modalities in DicomModalities may do this";
const FLAGS: [Flag; 8] = [
    ("dicom-always-allow-echo", "DicomAlwaysAllowEcho", true, true, Severity::Warning, ALWAYS_ALLOWED),
    ("dicom-always-allow-store", "DicomAlwaysAllowStore", true, true, Severity::Warning, ALWAYS_ALLOWED),
    ("dicom-always-allow-find", "DicomAlwaysAllowFind", false, true, Severity::Critical, ALWAYS_ALLOWED),
    (
        "dicom-always-allow-find-worklist",
        "DicomAlwaysAllowFindWorklist",
        false,
        true,
        Severity::Critical,
        ALWAYS_ALLOWED,
    ),
    ("dicom-always-allow-get", "DicomAlwaysAllowGet", false, true, Severity::Critical, ALWAYS_ALLOWED),
    ("dicom-always-allow-move", "DicomAlwaysAllowMove", false, true, Severity::Critical, ALWAYS_ALLOWED),
    (
        "dicom-check-modality-host",
        "DicomCheckModalityHost",
        false,
        false,
        Severity::Warning,
        "set it to true, so that a modality is known by its IP address too; Host in DicomModalities must then be an IP \
         address",
    ),
    (
        "dicom-check-called-aet",
        "DicomCheckCalledAet",
        false,
        false,
        Severity::Warning,
        "set it to true, so that only modalities that know DicomAet can connect",
    ),
];

pub(crate) fn check(options: &Options<'_>, facts: &Facts) -> Vec<Finding> {
    let is_on = options.flag_or("DicomServerEnabled", true);
    let mut findings = vec![server(options)];
    findings.extend(FLAGS.iter().map(|(id, option, default, bad, severity, advice)| {
        if !is_on {
            return AREA.check(id, option).ok(OFF);
        }
        options.check_flag(AREA.check(id, option), *default, (*bad, *severity), advice)
    }));
    let check = AREA.check("dicom-modalities", "DicomModalities");
    findings.push(if is_on { modalities::check(check, options, facts) } else { check.ok(OFF) });
    findings.extend([tls(options, is_on), tls_version(options, is_on), tls_certificates(options, is_on)]);
    findings
}

fn server(options: &Options<'_>) -> Finding {
    let check = AREA.check("dicom-server", "DicomServerEnabled");
    match options.flag("DicomServerEnabled", true) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if setting.value => check.finding(
            Severity::Ok,
            setting.shown,
            "set it to false if no modality sends images to this Orthanc, above all on a machine in a cloud",
        ),
        Ok(setting) => check.ok(setting.shown),
    }
}

fn tls(options: &Options<'_>, is_on: bool) -> Finding {
    let option = "DicomTlsEnabled";
    if !is_on {
        return AREA.check("dicom-tls", option).ok(OFF);
    }
    let advice = "images cross the network in clear: set it to true, with DicomTlsCertificate, DicomTlsPrivateKey and \
                  DicomTlsTrustedCertificates; or keep modalities in a network of their own";
    options.check_flag(AREA.check("dicom-tls", option), false, (false, Severity::Warning), advice)
}

fn has_tls(options: &Options<'_>, is_on: bool) -> bool {
    is_on && options.flag_or("DicomTlsEnabled", false)
}

fn tls_version(options: &Options<'_>, is_on: bool) -> Finding {
    let check = AREA.check("dicom-tls-version", "DicomTlsMinimumProtocolVersion");
    match options.number(check.option, 0) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if !has_tls(options, is_on) => check.ok(format!("{}, without effect", setting.shown)),
        Ok(setting) if (1..TLS_1_2).contains(&setting.value) => check.warning(
            setting.shown,
            "set it to 0 or remove it, so that only TLS 1.2 and newer are accepted: older versions are broken",
        ),
        Ok(setting) => check.ok(setting.shown),
    }
}

fn tls_certificates(options: &Options<'_>, is_on: bool) -> Finding {
    let check = AREA.check("dicom-tls-client-certificates", "DicomTlsRemoteCertificateRequired");
    match options.flag(check.option, true) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if !has_tls(options, is_on) => check.ok(format!("{}, without effect", setting.shown)),
        Ok(setting) if !setting.value => check.warning(
            setting.shown,
            "set it to true, and list the authorities of the modalities in DicomTlsTrustedCertificates: without, everyone \
             can connect with TLS",
        ),
        Ok(setting) => check.ok(setting.shown),
    }
}

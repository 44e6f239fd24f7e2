//! Orthanc's error codes and content types, and the error type of calls to Orthanc.

use std::fmt;

/// An `OrthancPluginErrorCode`: the result of a callback or of a service.
///
/// Orthanc turns the code into an HTTP status: [`INEXISTENT_FILE`](Self::INEXISTENT_FILE),
/// [`INEXISTENT_ITEM`](Self::INEXISTENT_ITEM) and [`UNKNOWN_RESOURCE`](Self::UNKNOWN_RESOURCE) become 404,
/// [`BAD_RANGE`](Self::BAD_RANGE) 416, [`BAD_FILE_FORMAT`](Self::BAD_FILE_FORMAT) and
/// [`BAD_REQUEST`](Self::BAD_REQUEST) 400, most others 500.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(i32);

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $name:ident = $value:literal, $label:literal;)+) => {
        impl ErrorCode {
            $($(#[$doc])+ pub const $name: Self = Self($value);)+

            /// The code's name in the SDK without its prefix, if this crate knows the code.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($label),)+
                    _ => None,
                }
            }

            /// All codes with a name, for the comparison with the C header.
            #[doc(hidden)]
            pub const NAMED: &'static [(&'static str, i32)] = &[$(($label, $value)),+];
        }
    };
}

error_codes! {
    /// An error inside Orthanc.
    INTERNAL_ERROR = -1, "InternalError";
    /// No error. A callback's `Err` with this code becomes [`PLUGIN`](Self::PLUGIN).
    SUCCESS = 0, "Success";
    /// An error inside a plugin, for instance a panic.
    PLUGIN = 1, "Plugin";
    /// Not implemented.
    NOT_IMPLEMENTED = 2, "NotImplemented";
    /// A parameter is out of range.
    PARAMETER_OUT_OF_RANGE = 3, "ParameterOutOfRange";
    /// Out of memory.
    NOT_ENOUGH_MEMORY = 4, "NotEnoughMemory";
    /// A parameter has the wrong type.
    BAD_PARAMETER_TYPE = 5, "BadParameterType";
    /// A call in the wrong order.
    BAD_SEQUENCE_OF_CALLS = 6, "BadSequenceOfCalls";
    /// The item does not exist.
    INEXISTENT_ITEM = 7, "InexistentItem";
    /// A malformed request.
    BAD_REQUEST = 8, "BadRequest";
    /// An error in a network protocol.
    NETWORK_PROTOCOL = 9, "NetworkProtocol";
    /// The attachment does not exist.
    INEXISTENT_FILE = 13, "InexistentFile";
    /// An attachment cannot be written.
    CANNOT_WRITE_FILE = 14, "CannotWriteFile";
    /// An attachment has the wrong format.
    BAD_FILE_FORMAT = 15, "BadFileFormat";
    /// A timeout.
    TIMEOUT = 16, "Timeout";
    /// The REST resource does not exist.
    UNKNOWN_RESOURCE = 17, "UnknownResource";
    /// The storage is full.
    FULL_STORAGE = 19, "FullStorage";
    /// An attachment is damaged.
    CORRUPTED_FILE = 20, "CorruptedFile";
    /// The target is read-only.
    READ_ONLY = 22, "ReadOnly";
    /// This version of Orthanc does not have the service.
    UNKNOWN_PLUGIN_SERVICE = 26, "UnknownPluginService";
    /// Invalid JSON.
    BAD_JSON = 28, "BadJson";
    /// Bad credentials.
    UNAUTHORIZED = 29, "Unauthorized";
    /// An error in a storage area that a plugin provides.
    STORAGE_AREA_PLUGIN = 32, "StorageAreaPlugin";
    /// An unexpected null pointer.
    NULL_POINTER = 35, "NullPointer";
    /// The job was cancelled.
    CANCELED_JOB = 37, "CanceledJob";
    /// A range outside of the attachment.
    BAD_RANGE = 41, "BadRange";
    /// This HTTP status cannot be sent this way.
    BAD_HTTP_STATUS_IN_REST = 2005, "BadHttpStatusInRest";
    /// Another plugin registered a storage area first.
    STORAGE_AREA_ALREADY_REGISTERED = 2036, "StorageAreaAlreadyRegistered";
    /// The media type is not supported.
    UNSUPPORTED_MEDIA_TYPE = 3000, "UnsupportedMediaType";
}

impl ErrorCode {
    /// Creates a code from its number; any number is accepted.
    pub const fn from_raw(code: i32) -> Self {
        Self(code)
    }

    /// Returns the number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

/// The number that a callback returns to Orthanc. `Err(SUCCESS)` must not look like success.
pub(crate) fn to_raw(result: Result<(), ErrorCode>) -> i32 {
    match result {
        Ok(()) => ErrorCode::SUCCESS.as_raw(),
        Err(ErrorCode::SUCCESS) => ErrorCode::PLUGIN.as_raw(),
        Err(code) => code.as_raw(),
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().unwrap_or("error"), self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ErrorCode {}

/// The content type of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentType(i32);

impl ContentType {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// A DICOM file.
    pub const DICOM: Self = Self(1);
    /// A JSON summary of a DICOM file.
    pub const DICOM_AS_JSON: Self = Self(2);
    /// The DICOM file up to its pixel data.
    pub const DICOM_UNTIL_PIXEL_DATA: Self = Self(3);

    /// Creates a content type from its number; any number is accepted. User-defined content types begin at
    /// 1024.
    pub const fn from_raw(content_type: i32) -> Self {
        Self(content_type)
    }

    /// Returns the number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

/// An error of a call to Orthanc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrthancError {
    /// Orthanc has finalized the plugin and must not be called any more.
    #[error("Orthanc has finalized this plugin")]
    Finalized,
    /// A service returned an error code.
    #[error("Orthanc's service {service} failed: {code}")]
    Service {
        /// Name of the service.
        service: &'static str,
        /// Orthanc's error code.
        code: ErrorCode,
    },
    /// A call to Orthanc's REST API failed.
    #[error("{method} {path} failed in Orthanc: {code}")]
    Rest {
        /// The HTTP method.
        method: &'static str,
        /// The path.
        path: String,
        /// Orthanc's error code, such as [`ErrorCode::UNKNOWN_RESOURCE`] for HTTP 404.
        code: ErrorCode,
    },
    /// A string contains a NUL character, which C strings cannot represent.
    #[error("{what} contains a NUL character")]
    NulCharacter {
        /// The string.
        what: &'static str,
    },
    /// Orthanc's configuration is not valid JSON.
    #[error("cannot parse Orthanc's configuration: {0}")]
    Configuration(#[source] serde_json::Error),
    /// The plugin registers too many REST routes.
    #[error("a plugin can register at most {max} REST routes")]
    TooManyRoutes {
        /// Maximum number of routes.
        max: usize,
    },
}

impl OrthancError {
    /// The error code to return from a callback.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Service { code, .. } | Self::Rest { code, .. } => *code,
            Self::Finalized => ErrorCode::BAD_SEQUENCE_OF_CALLS,
            Self::Configuration(_) => ErrorCode::BAD_JSON,
            Self::NulCharacter { .. } | Self::TooManyRoutes { .. } => ErrorCode::PARAMETER_OUT_OF_RANGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let code = ErrorCode::UNKNOWN_RESOURCE;
        let not_json = serde_json::from_str::<serde_json::Value>("{").unwrap_err();
        let errors = [
            OrthancError::Finalized,
            OrthancError::Service { service: "CreateMemoryBuffer64", code: ErrorCode::NOT_ENOUGH_MEMORY },
            OrthancError::Service { service: "CreateMemoryBuffer64", code: ErrorCode::from_raw(9999) },
            OrthancError::Rest { method: "GET", path: "/instances/ID".to_owned(), code },
            OrthancError::NulCharacter { what: "the path" },
            OrthancError::Configuration(not_json),
            OrthancError::TooManyRoutes { max: 64 },
        ];
        // Add new variants to the match and to the list above.
        let lines = errors.iter().map(|error| {
            let variant = match error {
                OrthancError::Finalized => "Finalized",
                OrthancError::Service { .. } => "Service",
                OrthancError::Rest { .. } => "Rest",
                OrthancError::NulCharacter { .. } => "NulCharacter",
                OrthancError::Configuration(_) => "Configuration",
                OrthancError::TooManyRoutes { .. } => "TooManyRoutes",
            };
            format!("OrthancError::{variant}: {error}")
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("orthanc-ffi", text) });
    }
}

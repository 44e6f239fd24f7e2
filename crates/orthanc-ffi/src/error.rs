//! Orthanc's error codes and content types, and the error of calls to Orthanc.

use std::fmt;

/// An `OrthancPluginErrorCode`: what a callback returns to Orthanc, and what a service of Orthanc returns.
///
/// Orthanc turns it into an HTTP status: [`INEXISTENT_FILE`](Self::INEXISTENT_FILE),
/// [`INEXISTENT_ITEM`](Self::INEXISTENT_ITEM) and [`UNKNOWN_RESOURCE`](Self::UNKNOWN_RESOURCE) become 404,
/// [`BAD_RANGE`](Self::BAD_RANGE) 416, [`BAD_FILE_FORMAT`](Self::BAD_FILE_FORMAT) and
/// [`BAD_REQUEST`](Self::BAD_REQUEST) 400, most others 500.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(i32);

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $name:ident = $value:literal, $label:literal;)+) => {
        impl ErrorCode {
            $($(#[$doc])+ pub const $name: Self = Self($value);)+

            /// The code's name in the SDK without its prefix, where this crate knows it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($label),)+
                    _ => None,
                }
            }

            /// Every code with a name, for the test against the header.
            #[doc(hidden)]
            pub const NAMED: &'static [(&'static str, i32)] = &[$(($label, $value)),+];
        }
    };
}

error_codes! {
    /// An error inside Orthanc.
    INTERNAL_ERROR = -1, "InternalError";
    /// No error. As the `Err` of a callback it is taken for [`PLUGIN`](Self::PLUGIN).
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
    /// Calls in the wrong order.
    BAD_SEQUENCE_OF_CALLS = 6, "BadSequenceOfCalls";
    /// An item that does not exist.
    INEXISTENT_ITEM = 7, "InexistentItem";
    /// A request that cannot be understood.
    BAD_REQUEST = 8, "BadRequest";
    /// An error in a network protocol.
    NETWORK_PROTOCOL = 9, "NetworkProtocol";
    /// An attachment that does not exist.
    INEXISTENT_FILE = 13, "InexistentFile";
    /// An attachment cannot be written.
    CANNOT_WRITE_FILE = 14, "CannotWriteFile";
    /// An attachment has the wrong format.
    BAD_FILE_FORMAT = 15, "BadFileFormat";
    /// Something took too long.
    TIMEOUT = 16, "Timeout";
    /// A REST resource that does not exist.
    UNKNOWN_RESOURCE = 17, "UnknownResource";
    /// The storage is full.
    FULL_STORAGE = 19, "FullStorage";
    /// An attachment is damaged.
    CORRUPTED_FILE = 20, "CorruptedFile";
    /// Something must not be written.
    READ_ONLY = 22, "ReadOnly";
    /// A service that this host does not have.
    UNKNOWN_PLUGIN_SERVICE = 26, "UnknownPluginService";
    /// Not JSON.
    BAD_JSON = 28, "BadJson";
    /// Bad credentials.
    UNAUTHORIZED = 29, "Unauthorized";
    /// An error in a storage area that a plugin provides.
    STORAGE_AREA_PLUGIN = 32, "StorageAreaPlugin";
    /// A null pointer where there must be none.
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
    /// A code by its number; any number is accepted.
    pub const fn from_raw(code: i32) -> Self {
        Self(code)
    }

    /// The number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

/// What a callback returns to Orthanc: success cannot be an error.
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
    /// The beginning of a DICOM file up to its pixel data.
    pub const DICOM_UNTIL_PIXEL_DATA: Self = Self(3);

    /// A content type by its number; user-defined ones begin at 1024, any number is accepted.
    pub const fn from_raw(content_type: i32) -> Self {
        Self(content_type)
    }

    /// The number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

/// An error of a call to Orthanc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrthancError {
    /// The plugin has been finalised since: this host must not be called any more.
    #[error("Orthanc has finalised this plugin")]
    Finalized,
    /// A service returned an error code.
    #[error("Orthanc's service {service} failed: {code}")]
    Service {
        /// Name of the service.
        service: &'static str,
        /// What it returned.
        code: ErrorCode,
    },
    /// A call to Orthanc's REST API failed.
    #[error("{method} {path} failed in Orthanc: {code}")]
    Rest {
        /// `GET`, `POST`, `PUT` or `DELETE`.
        method: &'static str,
        /// Path that was called.
        path: String,
        /// What Orthanc returned: [`ErrorCode::UNKNOWN_RESOURCE`] for HTTP 404, for instance.
        code: ErrorCode,
    },
    /// A string with a NUL character, which C cannot carry.
    #[error("{what} contains a NUL character")]
    NulCharacter {
        /// Which string.
        what: &'static str,
    },
    /// Orthanc's configuration is not JSON.
    #[error("Orthanc's configuration cannot be read: {0}")]
    Configuration(#[source] serde_json::Error),
    /// More REST routes than this crate has room for.
    #[error("a plugin can register {max} REST routes at most")]
    TooManyRoutes {
        /// Room for routes.
        max: usize,
    },
}

impl OrthancError {
    /// Orthanc's error code, for callbacks that pass the error on.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Service { code, .. } | Self::Rest { code, .. } => *code,
            Self::Finalized => ErrorCode::BAD_SEQUENCE_OF_CALLS,
            Self::Configuration(_) => ErrorCode::BAD_JSON,
            Self::NulCharacter { .. } | Self::TooManyRoutes { .. } => ErrorCode::PARAMETER_OUT_OF_RANGE,
        }
    }
}

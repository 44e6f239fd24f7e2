//! How a bucket is reached: options that the clouds have in common.

use std::time::Duration;

use bucket::{RetryPolicy, TransferOptions};
use cloud_http::HttpOptions;

use super::{ConfigError, Section};

/// A week, in seconds.
const LONGEST_TIMEOUT: u64 = 7 * 24 * 3600;

/// Connections, time limits and repetitions.
#[derive(Debug)]
pub struct NetworkOptions {
    /// `ConnectionTimeout`, `MaxConnections`.
    pub http: HttpOptions,
    /// `RequestTimeout`, `MaxRetries`.
    pub retry: RetryPolicy,
    /// `TransferPoolSize`, `TransferBufferSize`.
    pub transfer: TransferOptions,
    /// `EnableHttpLogs`, or its other name.
    pub http_logs: bool,
}

impl NetworkOptions {
    /// Reads them from a cloud's section, which may have another name for `EnableHttpLogs`.
    ///
    /// # Errors
    ///
    /// When one is of another type or out of bounds.
    pub(crate) fn read(
        section: &mut Section<'_>,
        http_log_option: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let connect_timeout = connect_timeout(section)?;
        let max_connections = section.number("MaxConnections", 25, 1..=10_000)?;
        let request_timeout = section.number("RequestTimeout", 1200, 1..=LONGEST_TIMEOUT)?;
        let max_retries = section.number("MaxRetries", 10, 0..=1000)?;
        let connections = section.number("TransferPoolSize", 10, 1..=1000)?;
        // S3 and Google want 5 MiB for a part at least, but for the last.
        let megabytes = section.number("TransferBufferSize", 5, 5..=5120)?;
        let by_other_name = http_log_option.map_or(Ok(false), |option| section.flag(option, false))?;
        let http_logs = section.flag("EnableHttpLogs", false)? || by_other_name;
        Ok(Self {
            http: HttpOptions {
                connect_timeout,
                stall_limit: connect_timeout,
                max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
                ..HttpOptions::default()
            },
            retry: RetryPolicy {
                max_retries: u32::try_from(max_retries).unwrap_or(u32::MAX),
                deadline: Duration::from_secs(request_timeout),
                ..RetryPolicy::default()
            },
            transfer: TransferOptions {
                connections: usize::try_from(connections).unwrap_or(usize::MAX),
                part_size: megabytes * 1024 * 1024,
            },
            http_logs,
        })
    }
}

/// `ConnectionTimeout`, or its older spelling `ConnectTimeout`.
fn connect_timeout(section: &mut Section<'_>) -> Result<Duration, ConfigError> {
    let older = section.number("ConnectTimeout", 30, 1..=LONGEST_TIMEOUT)?;
    let seconds = section.number("ConnectionTimeout", older, 1..=LONGEST_TIMEOUT)?;
    Ok(Duration::from_secs(seconds))
}

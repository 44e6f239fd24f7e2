//! Connections, timeouts and retries: network options that all clouds share.

use std::time::Duration;

use bucket::{RetryPolicy, TransferOptions};
use cloud_http::HttpOptions;

use super::{ConfigError, Section};

/// The option for the bucket's proxy.
pub(crate) const PROXY: &str = "Proxy";
/// A week, in seconds.
const LONGEST_TIMEOUT: u64 = 7 * 24 * 3600;

/// Connections, timeouts and retries.
#[derive(Debug)]
pub struct NetworkOptions {
    /// `ConnectionTimeout`, `RequestTimeout`, `MaxConnections`, `Proxy`.
    pub http: HttpOptions,
    /// `RequestTimeout`, `MaxRetries`, `OutageTimeout`.
    pub retry: RetryPolicy,
    /// `TransferPoolSize`, `TransferBufferSize`.
    pub transfer: TransferOptions,
    /// `EnableHttpLogs`, or the cloud's alternative name.
    pub http_logs: bool,
}

impl NetworkOptions {
    /// Reads the options from a cloud's section. `http_log_option` is an alternative name of
    /// `EnableHttpLogs`.
    ///
    /// # Errors
    ///
    /// Returns an error if an option has another type or is out of range.
    pub(crate) fn read(
        section: &mut Section<'_>,
        http_log_option: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let defaults = HttpOptions::default();
        let timeout = connection_timeout(section)?;
        let max_connections = section.number("MaxConnections", 25, 1..=10_000)?;
        let request_timeout = section.number("RequestTimeout", 1200, 1..=LONGEST_TIMEOUT)?;
        let is_limited = section.has("OutageTimeout") || !section.has("MaxRetries");
        let outage = section.number("OutageTimeout", 20, 1..=LONGEST_TIMEOUT)?;
        let max_retries = section.number("MaxRetries", 10, 0..=1000)?;
        let connections = section.number("TransferPoolSize", 10, 1..=1000)?;
        // Parts must leave connections for small requests.
        let connections = connections.min(max_connections.div_ceil(2));
        // S3 and Google require at least 5 MiB for every part but the last.
        let megabytes = section.number("TransferBufferSize", 5, 5..=5120)?;
        let alternative = http_log_option.map_or(Ok(false), |option| section.flag(option, false))?;
        let http_logs = section.flag("EnableHttpLogs", false)? || alternative;
        let retry = RetryPolicy {
            max_retries: u32::try_from(max_retries).unwrap_or(u32::MAX),
            deadline: Duration::from_secs(request_timeout),
            patience: Duration::from_secs(outage),
            ..RetryPolicy::default()
        };
        Ok(Self {
            http: HttpOptions {
                connect_timeout: timeout.unwrap_or(defaults.connect_timeout),
                stall_limit: timeout.unwrap_or(defaults.stall_limit),
                answer_limit: Duration::from_secs(request_timeout),
                proxy: section.string(PROXY)?.map(|proxy| proxy.trim().to_owned()),
                max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
                ..defaults
            },
            retry: if is_limited { retry } else { retry.patient() },
            transfer: TransferOptions {
                connections: usize::try_from(connections).unwrap_or(usize::MAX),
                part_size: megabytes * 1024 * 1024,
                always: false,
            },
            http_logs,
        })
    }
}

/// Reads `ConnectionTimeout`, or its older name `ConnectTimeout`; `None` if neither is set.
fn connection_timeout(section: &mut Section<'_>) -> Result<Option<Duration>, ConfigError> {
    let older = section.number("ConnectTimeout", 0, 1..=LONGEST_TIMEOUT)?;
    let seconds = section.number("ConnectionTimeout", older, 1..=LONGEST_TIMEOUT)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

//! The checks of the bucket at start: can it be read and written, and are the master keys the right ones?

use std::sync::Arc;
use std::time::Duration;

use bucket::{BucketCheck, Cause, ObjectStorage, Operation, RetryPolicy, StorageError, WriteCheck};
use orthanc_ffi::InitializeError;
use tokio::time::Instant;

use crate::area::encryption::Encryption;
use crate::area::keys::KeyError;
use crate::provider::Provider;
use crate::runtime::Runtime;

/// Time limit for all checks together.
const CHECKS: Duration = Duration::from_secs(10);
/// Time limit for the first answer of a key service.
const KEY_SERVICE: Duration = Duration::from_secs(5);
/// Retries of what follows the first request, since the server has answered. When several Orthancs start at once, Google
/// refuses to write the same object twice within a second.
const RETRIES: u32 = 4;

/// Checks the bucket, and that attachments can be written and deleted there if `write` is set. Compares the master keys
/// with those that the bucket's objects were encrypted with.
///
/// A transient failure is only a warning, since Orthanc may start before the server does. So is a missing permission:
/// the C++ plugins start without it, and viewers that never store need only read.
pub(crate) fn check<P: Provider>(
    runtime: &Runtime,
    storage: &ObjectStorage,
    write: bool,
    encryption: Option<&Arc<Encryption>>,
) -> Result<(), InitializeError> {
    let deadline = Instant::now() + CHECKS;
    let policy = |max_retries| {
        let deadline = deadline.saturating_duration_since(Instant::now());
        RetryPolicy { max_retries, deadline, ..RetryPolicy::default() }
    };
    let answers = check_read::<P>(runtime, storage, policy(0))?;
    if answers && write {
        let checked = storage.clone();
        let policy = policy(RETRIES);
        let check = async move { checked.check_write(policy).await };
        report_write_check::<P>(runtime.run(within(deadline, storage.clone(), check)));
    }
    let Some(encryption) = encryption else { return Ok(()) };
    let compared = if answers && Instant::now() < deadline {
        let keys = Arc::clone(&encryption.keys);
        let policy = policy(RETRIES);
        let check = async move { keys.at_start(policy).await };
        is_compared(runtime.run(within(deadline, storage.clone(), check)))?
    } else {
        false
    };
    if !compared {
        compare_later(runtime, encryption);
    }
    if write && encryption.writes() {
        prepare_file_key(runtime, encryption);
    }
    Ok(())
}

/// Whether the master keys need not be compared later.
fn is_compared(outcome: Result<(), KeyError>) -> Result<bool, InitializeError> {
    match outcome {
        Ok(()) | Err(KeyError::Stopping) => Ok(true),
        Err(KeyError::Wrong(error)) => Err(InitializeError::new(error.to_string())),
        Err(KeyError::Unknown(error) | KeyError::NeverCompared { error, .. }) => {
            let problem = without_option(error);
            tracing::warn!("{problem}; continuing; the master keys will be compared with the bucket later");
            Ok(false)
        }
    }
}

/// Asks a key service for the first file key. If it fails, Orthanc starts nevertheless: attachments in clear can be read.
fn prepare_file_key(runtime: &Runtime, encryption: &Encryption) {
    let ring = encryption.ring();
    let Some(keys) = ring.file_keys().filter(|keys| keys.writer().is_some()) else { return };
    let keys = Arc::clone(keys);
    let prepared = runtime.run(async move { tokio::time::timeout(KEY_SERVICE, keys.prepare()).await });
    let problem = match prepared {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("the key service has not answered in {} s", KEY_SERVICE.as_secs()),
    };
    tracing::warn!("{problem}; continuing; attachments can be stored once the key service has wrapped a key");
}

/// Runs a check, which consists of several requests with a limit of their own, until `deadline`.
async fn within<T, E: From<StorageError>>(
    deadline: Instant,
    storage: ObjectStorage,
    check: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout_at(deadline, check).await.unwrap_or_else(|_elapsed| {
        let error = StorageError::new(Operation::Check, storage.url(), not_in_time());
        Err(StorageError { transient: true, ..error }.into())
    })
}

/// Replaces the message that names the option `RequestTimeout`, which is not the limit here.
fn without_option(error: StorageError) -> StorageError {
    match error.cause {
        Cause::TimedOut(_) => StorageError { cause: not_in_time(), ..error },
        _ => error,
    }
}

fn not_in_time() -> Cause {
    Cause::Network(format!(
        "the server has not answered within the {} s that all checks at start may take",
        CHECKS.as_secs()
    ))
}

/// Sends one request. Returns whether the server answers it.
fn check_read<P: Provider>(
    runtime: &Runtime,
    storage: &ObjectStorage,
    policy: RetryPolicy,
) -> Result<bool, InitializeError> {
    let checked = storage.clone();
    match runtime.run(async move { checked.check(policy).await }).map_err(without_option) {
        Ok(BucketCheck::Found) => Ok(true),
        Ok(BucketCheck::Created) => {
            tracing::warn!("{} did not exist and was created: check that it is private", storage.url());
            Ok(true)
        }
        Err(error) if error.cause == Cause::Foreign => {
            let advice = format!("this does not look like {}: correct {}", P::SERVER, P::ENDPOINT_OPTION);
            Err(InitializeError::new(format!("{error}; {advice}")))
        }
        Err(error) if matches!(error.cause, Cause::WrongScheme(_)) => {
            Err(InitializeError::new(format!("{error}; correct {}", P::ENDPOINT_OPTION)))
        }
        Err(error) if error.operation == Operation::Check && error.lacks_permission() => {
            tracing::warn!("{error}; continuing; reading requires {}", P::READ_PERMISSIONS);
            Ok(true)
        }
        Err(error) if error.transient => {
            tracing::warn!("{error}; continuing, since the server may become available later");
            Ok(false)
        }
        Err(error) => Err(InitializeError::new(error.to_string())),
    }
}

/// Logs what the check has found. No failure prevents the start: reads may work.
fn report_write_check<P: Provider>(checked: Result<WriteCheck, StorageError>) {
    match checked.map_err(without_option) {
        Ok(WriteCheck::Done) => {}
        Ok(WriteCheck::NotDeleted(error)) => tracing::warn!(
            "{}; continuing; objects of deleted attachments will remain in the bucket{}",
            without_option(error.clone()),
            required(&error, "deleting", P::DELETE_PERMISSIONS)
        ),
        Ok(WriteCheck::NotReplaced(error)) => tracing::warn!(
            "{error}; continuing; this object of an earlier start cannot be replaced, perhaps because of a retention \
             policy, so it is not known whether attachments can be stored"
        ),
        Err(error) if error.transient && error.cause != Cause::Foreign => {
            tracing::warn!("{error}; continuing, since the server may become available later");
        }
        Err(error) => tracing::error!(
            "{error}; continuing, but attachments cannot be stored in the bucket{}; if this Orthanc only reads, set \
             \"CheckWrite\": false",
            required(&error, "storing", P::WRITE_PERMISSIONS)
        ),
    }
}

/// The end of a message about a missing permission; empty for other errors.
fn required(error: &StorageError, what: &str, permissions: &str) -> String {
    if error.lacks_permission() { format!("; {what} requires {permissions}") } else { String::new() }
}

/// Compares the master keys with the bucket in the background.
fn compare_later(runtime: &Runtime, encryption: &Arc<Encryption>) {
    let keys = Arc::clone(&encryption.keys);
    let stop = runtime.stop().clone();
    runtime.handle().spawn(async move {
        tokio::select! {
            () = keys.in_background() => {}
            () = stop.signal() => {}
        }
    });
}

//! The check of the bucket at start.

use std::time::Duration;

use bucket::{BucketCheck, Cause, ObjectStorage, Operation, RetryPolicy};
use orthanc_ffi::InitializeError;

use crate::provider::Provider;
use crate::runtime::Runtime;

/// Time limit for the check.
const CHECK: Duration = Duration::from_secs(10);

/// Checks with one request that the bucket can be used. A transient failure is only a warning, since Orthanc
/// may start before the server does, and so is a missing permission, which storing may not need.
pub(crate) fn check<P: Provider>(runtime: &Runtime, storage: &ObjectStorage) -> Result<(), InitializeError> {
    let policy = RetryPolicy { max_retries: 0, deadline: CHECK, ..RetryPolicy::default() };
    let checked = storage.clone();
    match runtime.run(async move { checked.check(policy).await }) {
        Ok(BucketCheck::Found) => Ok(()),
        Ok(BucketCheck::Created) => {
            tracing::warn!("{} did not exist and was created: check that it is private", storage.url());
            Ok(())
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
            Ok(())
        }
        Err(error) if error.transient => {
            tracing::warn!("{error}; continuing, since the server may become available later");
            Ok(())
        }
        Err(error) => Err(InitializeError::new(error.to_string())),
    }
}

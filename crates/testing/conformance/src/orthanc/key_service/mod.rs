//! A real Orthanc with its master key in the cloud's key service.

mod earlier_blobs;
mod fixture;
mod outages;
mod rotating;
mod secrets;
mod stopping;
mod using;

use storage_plugin::Provider as _;

pub(crate) use self::fixture::{KeyService, wrapped_key};
use crate::Cloud;
use crate::registry::Test;

pub(crate) fn tests<C: Cloud>() -> Vec<Test> {
    let mut tests = using::tests::<C>();
    tests.extend(outages::tests::<C>());
    tests.extend(stopping::tests::<C>());
    tests.extend(secrets::tests::<C>());
    if C::KEYS_HAVE_VERSIONS {
        tests.extend(rotating::tests::<C>());
    }
    if C::Provider::HAS_KEY_VAULT_BLOBS {
        tests.extend(earlier_blobs::tests::<C>());
    }
    tests
}

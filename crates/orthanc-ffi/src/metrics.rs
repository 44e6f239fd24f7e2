//! Metrics: numbers of the plugin in Orthanc's route `/tools/metrics-prometheus`.

use std::ffi::CStr;
use std::sync::Arc;

use crate::abi::{self, service};
use crate::entry;
use crate::error::OrthancError;
use crate::orthanc::Orthanc;
use crate::panic::guarded;
use crate::version::OrthancVersion;

/// The plugin's function that sets all its metrics.
pub(crate) type RefreshMetrics = dyn Fn() + Send + Sync;

impl Orthanc {
    /// Registers the function that sets the metrics, which Orthanc calls before it shows them. Call this during
    /// `initialize` only.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn register_metrics(&self, refresh: impl Fn() + Send + Sync + 'static) -> Result<(), OrthancError> {
        self.registrations().metrics = Some(Arc::new(refresh));
        let params = abi::RegisterMetrics { callback: Some(refresh_metrics) };
        let number = service::REGISTER_REFRESH_METRICS_CALLBACK;
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterRefreshMetricsCallback", number, &params) }
    }

    /// Sets a metric. Before Orthanc 1.12.1, metrics are floating-point numbers, which are exact up to 2^24.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn set_metric(&self, name: &CStr, value: u64) -> Result<(), OrthancError> {
        let (name, kind) = (name.as_ptr(), abi::METRICS_DEFAULT);
        if self.version() >= OrthancVersion::WITH_INTEGER_METRICS {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let params = abi::SetMetricsIntegerValue { name, value, kind };
            // SAFETY: the parameters are those of this service, and the name outlives the call.
            return unsafe {
                self.invoke("SetMetricsIntegerValue", service::SET_METRICS_INTEGER_VALUE, &params)
            };
        }
        #[expect(clippy::cast_precision_loss, reason = "the service takes nothing else")]
        let value = value as f32;
        let params = abi::SetMetricsValue { name, value, kind };
        // SAFETY: the parameters are those of this service, and the name outlives the call.
        unsafe { self.invoke("SetMetricsValue", service::SET_METRICS_VALUE, &params) }
    }
}

unsafe extern "C" fn refresh_metrics() {
    guarded("metrics", (), || {
        let refresh = entry::current().and_then(|orthanc| orthanc.registrations().metrics.clone());
        if let Some(refresh) = refresh {
            refresh();
        }
    });
}

//! Logs: tracing events as lines of Orthanc's log.
//!
//! Events of the plugin's own crates are logged from INFO up. Events of other crates are dropped, including
//! errors, unless their target is verbose: the plugin reports failures itself, and messages of an HTTP
//! library may contain secrets. Spans are ignored.

use std::fmt::{self, Write as _};
use std::sync::Once;

use parking_lot::{Mutex, RwLock};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_log::log;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::entry;
use crate::orthanc::Level;

/// Root module of the plugin's crate.
static PLUGIN_MODULE: RwLock<&'static str> = RwLock::new("orthanc_ffi");
/// Targets whose events are logged from INFO up, besides this crate and the plugin's.
static OWN: RwLock<&'static [&'static str]> = RwLock::new(&[]);
/// Targets whose events are logged from DEBUG up.
static VERBOSE: RwLock<&'static [&'static str]> = RwLock::new(&[]);
/// Bytes that most lines need at most.
const LENGTH: usize = 200;
/// Serializes changes of the filter.
static CHANGE: Mutex<()> = Mutex::new(());

/// Logs events of the plugin's crate from INFO up.
pub(crate) fn set_plugin_module(module: &'static str) {
    let root = module.split("::").next().unwrap_or(module);
    *PLUGIN_MODULE.write() = root;
    tracing::callsite::rebuild_interest_cache();
}

/// Sends tracing events and `log` records of this library to Orthanc's log.
///
/// Events of this crate, of the plugin's crate, and of the crates or modules in `own` are logged from INFO
/// up. Only the first call of a loaded library has an effect. Each event goes to the current Orthanc, and
/// is dropped if there is none.
pub fn install_tracing(own: &'static [&'static str]) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        *OWN.write() = own;
        // Both fail only if the library has already set a global default, which then stays.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(OrthancLayer));
        let _ = tracing_log::LogTracer::init();
        set_log_level();
    });
}

/// Replaces the targets (crates or modules, such as `hyper` or `reqwest::connect`) whose events are logged
/// from DEBUG up. Events below WARN become info lines.
///
/// These lines come from other crates: they may name hosts and objects.
pub fn set_verbose_targets(targets: &[&'static str]) {
    let _change = CHANGE.lock();
    let same = *VERBOSE.read() == targets;
    if same {
        return;
    }
    // Leaks a few bytes for each change of the configuration, so that readers need no lock while they log.
    *VERBOSE.write() = Box::leak(targets.into());
    set_log_level();
    tracing::callsite::rebuild_interest_cache();
}

/// Disables `log` records, which only come from other crates, unless a target is verbose.
fn set_log_level() {
    let quiet = VERBOSE.read().is_empty();
    log::set_max_level(if quiet { log::LevelFilter::Off } else { log::LevelFilter::Debug });
}

/// Whether `target` is one of these crates or modules, or inside one of them.
fn is_in(target: &str, modules: &[&str]) -> bool {
    modules.iter().any(|module| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// Whether events of this kind are logged.
fn passes(metadata: &Metadata<'_>) -> bool {
    let level = *metadata.level();
    let target = metadata.target();
    if metadata.is_span() || level > tracing::Level::DEBUG {
        return false;
    }
    if is_in(target, *VERBOSE.read()) {
        return true;
    }
    level <= tracing::Level::INFO
        && (is_in(target, &["orthanc_ffi", *PLUGIN_MODULE.read()]) || is_in(target, *OWN.read()))
}

/// A layer that writes each event as one line of Orthanc's log: `message key=value …`.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrthancLayer;

impl<S: Subscriber> Layer<S> for OrthancLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if passes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        passes(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let quiet = VERBOSE.read().is_empty();
        Some(if quiet { LevelFilter::INFO } else { LevelFilter::DEBUG })
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(orthanc) = entry::current() else { return };
        // A `log` record has its real level and place in its fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let level = match *metadata.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            _ => Level::Info,
        };
        let mut line = Line { message: String::with_capacity(LENGTH), fields: String::new() };
        event.record(&mut line);
        let text = if line.fields.is_empty() { line.message } else { line.message + &line.fields };
        orthanc.log_from(level, &text, metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
    }
}

/// The text of an event: its message, then its fields.
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_includes_inner_modules() {
        let own = &["storage"];
        assert!(is_in("storage", own));
        assert!(is_in("storage::read", own));
        assert!(!is_in("storage_rc", own));
        assert!(!is_in("hyper_util::client", own));
    }
}

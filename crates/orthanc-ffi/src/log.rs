//! Logs: tracing events as lines of Orthanc's log.
//!
//! Our own crates' events pass from INFO up. Events of other crates are dropped, errors included, unless a target is made
//! verbose: our code reports what fails, and what a HTTP library says may quote secrets. Spans are not used.

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
/// Targets whose events pass from INFO up, besides this crate and the plugin's.
static OWN: RwLock<&'static [&'static str]> = RwLock::new(&[]);
/// Targets whose events pass from DEBUG up.
static VERBOSE: RwLock<&'static [&'static str]> = RwLock::new(&[]);
/// `Once` can be asked from any thread; the filter is changed by one at a time.
static CHANGE: Mutex<()> = Mutex::new(());

/// Makes the plugin's crate one of ours.
pub(crate) fn set_plugin_module(module: &'static str) {
    let root = module.split("::").next().unwrap_or(module);
    *PLUGIN_MODULE.write() = root;
    tracing::callsite::rebuild_interest_cache();
}

/// Sends tracing events and `log` records of this library to Orthanc's log. Events of this crate, of the plugin's crate, and of
/// the crates or modules in `own` pass from INFO up. Once for each loaded library; later calls do nothing. Each event goes
/// to the Orthanc of that moment, and nowhere when there is none.
pub fn install_tracing(own: &'static [&'static str]) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        *OWN.write() = own;
        // Both fail only where something else in this library has set the global default before: then that one stays.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(OrthancLayer));
        let _ = tracing_log::LogTracer::init();
        set_log_level();
    });
}

/// Replaces the targets (crates or modules, as `object_store` or `reqwest::connect`) whose events pass from DEBUG up,
/// as info lines where they are below WARN. An empty list ends it.
///
/// These lines are what other people's code says: they may name hosts and objects.
pub fn set_verbose_targets(targets: &[&'static str]) {
    let _change = CHANGE.lock();
    let same = *VERBOSE.read() == targets;
    if same {
        return;
    }
    // Leaked: a few bytes for each change of the configuration, and readers need no lock while they log.
    let targets: &'static [&'static str] = Box::leak(targets.into());
    *VERBOSE.write() = targets;
    set_log_level();
    tracing::callsite::rebuild_interest_cache();
}

/// `log` records come from other crates only: while none is verbose they cost nothing.
fn set_log_level() {
    let quiet = VERBOSE.read().is_empty();
    log::set_max_level(if quiet { log::LevelFilter::Off } else { log::LevelFilter::Debug });
}

/// Whether `target` is one of these crates or modules, or inside of one.
fn is_in(target: &str, modules: &[&str]) -> bool {
    modules.iter().any(|module| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// Whether events of this kind pass.
fn passes(metadata: &Metadata<'_>) -> bool {
    let (level, target) = (*metadata.level(), metadata.target());
    if metadata.is_span() || level > tracing::Level::DEBUG {
        return false;
    }
    if is_in(target, *VERBOSE.read()) {
        return true;
    }
    level <= tracing::Level::INFO
        && (is_in(target, &["orthanc_ffi", *PLUGIN_MODULE.read()]) || is_in(target, *OWN.read()))
}

/// A layer that writes events into Orthanc's log, one line each: `NAME: message key=value …`.
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
        // A `log` record carries its real level and place in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let level = match *metadata.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            _ => Level::Info,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}: {}{}", orthanc.plugin_name(), line.message, line.fields);
        orthanc.log_from(level, &text, metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
    }
}

/// The text of an event: its message, then its fields.
#[derive(Default)]
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
    fn a_target_is_a_module_and_what_is_inside() {
        let own = &["storage"];
        assert!(is_in("storage", own));
        assert!(is_in("storage::read", own));
        assert!(!is_in("storage_rc", own));
        assert!(!is_in("hyper_util::client", own));
    }
}

//! The access tokens that a server has issued.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Opaque access tokens, shared by the server and the test.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    life: Duration,
    issued: BTreeMap<String, Issued>,
}

impl Default for State {
    fn default() -> Self {
        Self { life: Duration::from_hours(1), issued: BTreeMap::new() }
    }
}

#[derive(Debug)]
struct Issued {
    email: String,
    /// `None` for lives that the clock cannot express.
    until: Option<Instant>,
}

impl Tokens {
    /// Sets the life of later tokens. Clients see whole seconds, as `expires_in`.
    pub fn life(&self, life: Duration) {
        self.0.lock().life = life;
    }

    /// Returns a new token and its life in seconds.
    pub(crate) fn grant(&self, email: &str) -> (String, u64) {
        let mut state = self.0.lock();
        let token = format!("ya29.test-{:06}", state.issued.len());
        let issued = Issued { email: email.to_owned(), until: Instant::now().checked_add(state.life) };
        state.issued.insert(token.clone(), issued);
        (token, state.life.as_secs())
    }

    /// Returns the e-mail address for which a valid token was issued.
    pub(crate) fn holder(&self, token: &str) -> Option<String> {
        let state = self.0.lock();
        let issued = state.issued.get(token)?;
        issued.until.is_none_or(|until| until > Instant::now()).then(|| issued.email.clone())
    }
}

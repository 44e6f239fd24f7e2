//! The access tokens that a server has handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What Google's tokens last.
const HOUR: Duration = Duration::from_secs(3600);

/// Opaque access tokens, shared by the server and the test.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    life: Duration,
    next: u64,
    issued: BTreeMap<String, Issued>,
    jwt_refused: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { life: HOUR, next: 1, issued: BTreeMap::new(), jwt_refused: false }
    }
}

#[derive(Debug, Clone)]
struct Issued {
    email: String,
    until: Instant,
}

impl Tokens {
    /// How long later tokens are accepted; whole seconds are told to clients as `expires_in`.
    pub fn life(&self, life: Duration) {
        self.0.lock().life = life;
    }

    /// A token as the server would give for `email`.
    #[must_use]
    pub fn issue(&self, email: &str) -> String {
        self.grant(email).0
    }

    /// Makes all tokens that were handed out so far worthless.
    pub fn revoke_all(&self) {
        self.0.lock().issued.clear();
    }

    /// Refuses tokens that service accounts sign themselves, as after their key was deleted, or accepts them again.
    pub fn refuse_self_signed(&self, refuse: bool) {
        self.0.lock().jwt_refused = refuse;
    }

    /// How many were handed out and are neither revoked nor expired.
    #[must_use]
    pub fn valid(&self) -> usize {
        let now = Instant::now();
        self.0.lock().issued.values().filter(|issued| issued.until > now).count()
    }

    pub(crate) fn self_signed_refused(&self) -> bool {
        self.0.lock().jwt_refused
    }

    /// A new token with the seconds that it lasts.
    pub(crate) fn grant(&self, email: &str) -> (String, u64) {
        let mut state = self.0.lock();
        let token = format!("ya29.test-{:06}", state.next);
        state.next += 1;
        let issued = Issued { email: email.to_owned(), until: Instant::now() + state.life };
        state.issued.insert(token.clone(), issued);
        (token, state.life.as_secs())
    }

    /// Whose token it is, while it is valid.
    pub(crate) fn holder(&self, token: &str) -> Option<String> {
        let state = self.0.lock();
        let issued = state.issued.get(token)?;
        (issued.until > Instant::now()).then(|| issued.email.clone())
    }
}

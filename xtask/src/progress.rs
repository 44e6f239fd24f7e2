//! How far a step has come: one line that is written over on a terminal, a line for each quarter elsewhere.

use std::io::{IsTerminal, Write, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Progress of one step. Any thread may advance it.
pub(crate) struct Progress {
    label: &'static str,
    total: usize,
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    done: usize,
    shown: usize,
    next: Instant,
}

impl Progress {
    pub(crate) fn new(label: &'static str, total: usize) -> Self {
        let state = State { done: 0, shown: 0, next: Instant::now() };
        Self { label, total, terminal: stdout().is_terminal(), state: Mutex::new(state) }
    }

    /// One more is done.
    pub(crate) fn advance(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += 1;
        if self.is_due(&state) {
            state.next = Instant::now() + PAUSE;
            state.shown = state.done;
            let (label, done, total) = (self.label, state.done, self.total);
            if self.terminal {
                print!("\r{label}: {done} of {total}");
                // What is not shown now is shown next time.
                let _ = stdout().flush();
            } else {
                println!("{label}: {done} of {total}");
            }
        }
    }

    /// Ends the line on a terminal.
    pub(crate) fn finish(&self) {
        if self.terminal {
            println!();
        }
    }

    fn is_due(&self, state: &State) -> bool {
        if state.done == self.total {
            return true;
        }
        if self.terminal {
            Instant::now() >= state.next
        } else {
            (state.done - state.shown) * 4 >= self.total
        }
    }
}

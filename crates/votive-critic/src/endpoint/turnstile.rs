//! Lets only so many in at the same time.

use std::sync::{Condvar, Mutex, PoisonError};

/// A door with a number of places behind it.
pub(super) struct Turnstile {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place behind the door, until it is dropped.
pub(super) struct Place<'a>(&'a Turnstile);

impl Turnstile {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub(super) fn enter(&self) -> Place<'_> {
        // A count is right even if somebody panicked while holding it.
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

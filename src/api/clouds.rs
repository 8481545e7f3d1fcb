//! Open catalogues, kept for the next request in the same region for the same account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ApiError;
use crate::cloud::home::Home;
use crate::cloud::{Backend, Cloud, CloudError, Scope};

/// Most that are kept for one scope, and most scopes for which any are.
const MAX_IDLE: usize = 16;
const MAX_SCOPES: usize = 64;
/// How old the truth about machines may be when a listing tells it.
const FRESH: Duration = Duration::from_millis(100);

/// The catalogues.
pub struct Clouds {
    home: Home,
    backend: Backend,
    idle: Mutex<HashMap<Scope, Vec<Cloud>>>,
    swept: Mutex<Option<Instant>>,
}

impl Clouds {
    /// None is open yet. Launches are on `backend`.
    #[must_use]
    pub fn new(home: Home, backend: Backend) -> Self {
        Self { home, backend, idle: Mutex::default(), swept: Mutex::default() }
    }

    /// Opens one.
    ///
    /// # Errors
    /// As [`Cloud::open`].
    pub fn open(&self, scope: &Scope) -> Result<Cloud, CloudError> {
        Ok(Cloud::open(self.home.clone(), scope.clone())?.with_backend(self.backend))
    }

    /// Does something with one, which sees the truth as of a moment ago.
    ///
    /// # Errors
    /// What `work` says; as [`Cloud::open`].
    pub fn with<T>(&self, scope: &Scope, work: impl FnOnce(&mut Cloud) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(scope).and_then(Vec::pop);
        let mut cloud = match kept {
            Some(cloud) => cloud,
            None => self.open(scope)?,
        };
        if self.is_to_sweep() {
            cloud.refresh()?;
        }
        // One in which something panicked is not kept.
        let done = work(&mut cloud);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_SCOPES || idle.contains_key(scope) {
            let kept = idle.entry(scope.clone()).or_default();
            if kept.len() < MAX_IDLE {
                kept.push(cloud);
            }
        }
        done
    }

    fn is_to_sweep(&self) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = swept.is_none_or(|at| at.elapsed() >= FRESH);
        if is_due {
            *swept = Some(Instant::now());
        }
        is_due
    }
}

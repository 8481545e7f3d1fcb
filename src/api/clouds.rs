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
    /// One that changes nothing, and so sees every change.
    watching: Mutex<Option<Cloud>>,
}

impl Clouds {
    /// None is open yet. Launches are on `backend`.
    #[must_use]
    pub fn new(home: Home, backend: Backend) -> Self {
        Self { home, backend, idle: Mutex::default(), swept: Mutex::default(), watching: Mutex::default() }
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

    /// The catalogue's number, which every change gives another, with the truth as of a moment ago.
    ///
    /// # Errors
    /// As [`Cloud::open`].
    pub fn version(&self, scope: &Scope) -> Result<i64, ApiError> {
        if self.is_to_sweep() {
            self.with(scope, |cloud| Ok(cloud.refresh()?))?;
        }
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let cloud = match &mut *watching {
            Some(cloud) => cloud,
            none => none.insert(self.open(&Scope::default())?),
        };
        Ok(cloud.others_version()?)
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

//! Leases: what running operations need stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use silo_types::Digest;

/// How many leases hold each blob or chain id.
pub(crate) type Pins = HashMap<Digest, usize>;

/// Keeps blobs and layers from being collected until dropped.
#[derive(Debug)]
pub struct Lease {
    pins: Arc<Mutex<Pins>>,
    held: Mutex<Vec<Digest>>,
}

impl Lease {
    pub(crate) fn new(pins: Arc<Mutex<Pins>>) -> Self {
        Self { pins, held: Mutex::new(Vec::new()) }
    }

    /// Holds a blob or a layer, by digest or chain id, whether it exists yet or not.
    pub fn hold(&self, digest: Digest) {
        *lock(&self.pins).entry(digest).or_default() += 1;
        lock(&self.held).push(digest);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        for digest in lock(&self.held).drain(..) {
            if let Some(count) = pins.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(&digest);
                }
            }
        }
    }
}

/// A panic of another thread does not make these maps wrong: each change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

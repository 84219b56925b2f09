// SPDX-License-Identifier: MIT OR Apache-2.0
//! openmls's in-memory store with a copy of what was handed out, so that each operation yields its difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use openmls_memory_storage::MemoryStorage;
use zeroize::Zeroize;

use super::MlsChange;

/// One store. Its rows carry `scope` before their keys.
pub(super) struct Store {
    scope: Vec<u8>,
    memory: MemoryStorage,
    committed: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    pub(super) fn new(scope: Vec<u8>) -> Self {
        Self { scope, memory: MemoryStorage::default(), committed: BTreeMap::new() }
    }

    pub(super) fn memory(&self) -> &MemoryStorage {
        &self.memory
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.values.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A row as it was committed.
    pub(super) fn restore(&mut self, key: &[u8], value: Vec<u8>) {
        let mut values = self.memory.values.write().unwrap_or_else(PoisonError::into_inner);
        values.insert(key.to_vec(), value.clone());
        self.committed.insert(key.to_vec(), value);
    }

    /// What changed since the last call, in the order of keys.
    pub(super) fn diff(&mut self, out: &mut Vec<MlsChange>) {
        let values = self.memory.values.read().unwrap_or_else(PoisonError::into_inner);
        let mut changed: Vec<(&Vec<u8>, &Vec<u8>)> =
            values.iter().filter(|(key, value)| self.committed.get(*key) != Some(*value)).collect();
        changed.sort();
        let gone: Vec<Vec<u8>> = self.committed.keys().filter(|key| !values.contains_key(*key)).cloned().collect();
        for (key, value) in changed {
            out.push((self.row(key), Some(value.clone())));
            if let Some(mut old) = self.committed.insert(key.clone(), value.clone()) {
                old.zeroize();
            }
        }
        for key in gone {
            out.push((self.row(&key), None));
            if let Some(mut old) = self.committed.remove(&key) {
                old.zeroize();
            }
        }
    }

    /// Something of each row whose key begins with `label`.
    pub(super) fn map<T>(&self, label: &[u8], each: impl Fn(&[u8], &[u8]) -> Option<T>) -> Vec<T> {
        let values = self.memory.values.read().unwrap_or_else(PoisonError::into_inner);
        values.iter().filter(|(key, _)| key.starts_with(label)).filter_map(|(key, value)| each(key, value)).collect()
    }

    /// Writes a row of this client's own, which openmls does not know.
    pub(super) fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        self.memory.values.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    /// Deletes these rows; the next difference tells.
    pub(super) fn forget(&self, keys: &BTreeSet<Vec<u8>>) {
        let mut values = self.memory.values.write().unwrap_or_else(PoisonError::into_inner);
        values.retain(|key, _| !keys.contains(key));
    }

    /// Back to what was last handed out: after an operation that failed half-way.
    pub(super) fn roll_back(&self) {
        let mut values = self.memory.values.write().unwrap_or_else(PoisonError::into_inner);
        values.clear();
        values.extend(self.committed.iter().map(|(k, v)| (k.clone(), v.clone())));
    }

    /// Whether an operation since the last difference would be lost by [`Store::roll_back`].
    pub(super) fn is_clean(&self) -> bool {
        let values = self.memory.values.read().unwrap_or_else(PoisonError::into_inner);
        values.len() == self.committed.len() && values.iter().all(|(k, v)| self.committed.get(k) == Some(v))
    }

    /// Deletes every row.
    pub(super) fn clear(&mut self, out: &mut Vec<MlsChange>) {
        for key in std::mem::take(&mut self.committed).into_keys() {
            out.push((self.row(&key), None));
        }
        self.memory.values.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Its rows under another scope: deletes them there and forgets that they were handed out here.
    pub(super) fn moved(mut self, scope: Vec<u8>, out: &mut Vec<MlsChange>) -> Self {
        for key in std::mem::take(&mut self.committed).into_keys() {
            out.push((self.row(&key), None));
        }
        self.scope = scope;
        self
    }

    fn row(&self, key: &[u8]) -> Vec<u8> {
        [self.scope.as_slice(), key].concat()
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What openmls runs on: its RustCrypto back end, a seeded generator, one store.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use openmls_traits::random::OpenMlsRand;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::store::Store;

/// Randomness from a seed that the caller gave. (HPKE inside the back end draws from the system besides.)
pub(super) struct Rand(Mutex<ChaCha20Rng>);

impl Rand {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(Mutex::new(ChaCha20Rng::from_seed(seed)))
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

impl OpenMlsRand for Rand {
    type Error = Infallible;
    fn random_array<const N: usize>(&self) -> Result<[u8; N], Infallible> {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        Ok(bytes)
    }
    fn random_vec(&self, len: usize) -> Result<Vec<u8>, Infallible> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        Ok(bytes)
    }
}

pub(super) struct Provider {
    crypto: RustCrypto,
    rand: Rand,
}

impl Provider {
    pub(super) fn new(rand: Rand) -> Self {
        Self { crypto: RustCrypto::default(), rand }
    }
    pub(super) fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }
    pub(super) fn rand(&self) -> &Rand {
        &self.rand
    }
    pub(super) fn on<'a>(&'a self, store: &'a Store) -> OnStore<'a> {
        OnStore { provider: self, store: store.memory() }
    }
}

/// The provider on one store.
pub(super) struct OnStore<'a> {
    provider: &'a Provider,
    store: &'a MemoryStorage,
}

impl OpenMlsProvider for OnStore<'_> {
    type CryptoProvider = RustCrypto;
    type RandProvider = Rand;
    type StorageProvider = MemoryStorage;
    fn storage(&self) -> &MemoryStorage {
        self.store
    }
    fn crypto(&self) -> &RustCrypto {
        &self.provider.crypto
    }
    fn rand(&self) -> &Rand {
        &self.provider.rand
    }
}

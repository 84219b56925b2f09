// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's side of TLS, of every carrier: 1.3 only, no early data, resumption by tickets.

use std::fmt;
use std::sync::Arc;

use ::aws_lc_rs::hmac;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not of the kind expected.
    #[error("the {what} cannot be read as PEM")]
    Pem {
        /// "certificate" or "private key".
        what: &'static str,
        /// What the parser said.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate in the chain")]
    Empty,
    /// TLS refuses the pair.
    #[error("certificate and key cannot be used together")]
    Tls(#[from] rustls::Error),
}

/// A server's certificate chain, end entity first, with its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    sha256: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Identity {
    /// From a PEM chain and a PEM key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificate = |source| IdentityError::Pem { what: "certificate", source };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(certificate)?;
        let private = |source| IdentityError::Pem { what: "private key", source };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(private)?;
        let first = chain.first().ok_or(IdentityError::Empty)?;
        let sha256 = Sha256::digest(first).into();
        Ok(Self { chain, key, sha256 })
    }

    /// SHA-256 of the end-entity certificate in DER: its fingerprint, and a channel binding.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// A secret for this purpose that every process with the same key derives.
    pub(crate) fn derived(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der());
        let mut secret = [0; 32];
        // A tag of HMAC-SHA-256 has 32 bytes.
        secret.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        secret
    }

    /// The server's side of TLS for a protocol that ALPN names.
    pub(crate) fn server_config(&self, alpn: &[u8]) -> Result<Arc<ServerConfig>, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        // What a client sends before the handshake has ended could be replayed: none of it is read.
        config.max_early_data_size = 0;
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // One ticket resumes one connection, which is all that a session needs.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS to the database: rustls with aws-lc-rs, TLS 1.3 or 1.2, the nodes' certificates checked against named
//! authorities.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::OpenError;

pub(crate) fn client_config(ca_file: &Path) -> Result<Arc<ClientConfig>, OpenError> {
    config(ca_file).map(Arc::new).map_err(|source| OpenError::Authorities { path: ca_file.to_owned(), source })
}

fn config(ca_file: &Path) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("the file holds no certificate".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

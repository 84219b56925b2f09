// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who a user is may only be said by an edge: a request that names a caller is refused from anybody else.

use pli_api::Caller;
use rustls_pki_types::{CertificateDer, ServerName};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use crate::server::role::Role;

/// Refuses such a request.
pub fn from_edges(request: &http::Request<Body>) -> Result<(), Status> {
    if Caller::is_named(request.headers()) && !is_edge(request) {
        return Err(Status::permission_denied(
            "only a process whose certificate names edge.pli.internal may say who a user is",
        ));
    }
    Ok(())
}

fn is_edge(request: &http::Request<Body>) -> bool {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = info.and_then(TlsConnectInfo::peer_certs);
    certificates.and_then(|chain| chain.first().map(|own| names(own, Role::Edge))).unwrap_or(false)
}

/// Whether a certificate is valid for this role. Its chain was verified by TLS.
fn names(certificate: &CertificateDer<'_>, role: Role) -> bool {
    let Ok(name) = ServerName::try_from(role.dns_name()) else { return false };
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_roles_and_no_others() {
        let made = rcgen::generate_simple_self_signed([Role::Directory.dns_name(), Role::Edge.dns_name()]);
        let made = made.expect("a certificate");
        assert!(names(made.cert.der(), Role::Edge));
        assert!(names(made.cert.der(), Role::Directory));
        assert!(!names(made.cert.der(), Role::Delivery));
    }
}

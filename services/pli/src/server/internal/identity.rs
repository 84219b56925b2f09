// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who a user is may only be said by an edge: a request that names a caller is refused from anybody else.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use pli_api::Caller;
use rustls_pki_types::{CertificateDer, ServerName};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::server::role::Role;

/// The layer that checks it.
#[derive(Debug, Clone, Copy)]
pub struct FromEdges;

impl<S> Layer<S> for FromEdges {
    type Service = Checked<S>;
    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner }
    }
}

/// See [`FromEdges`].
#[derive(Debug, Clone)]
pub struct Checked<S> {
    inner: S,
}

impl<S> Service<http::Request<Body>> for Checked<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if Caller::is_named(request.headers()) && !is_edge(&request) {
            let refusal = Status::permission_denied(
                "only a process whose certificate names edge.pli.internal may say who a user is",
            );
            return Either::Right(ready(Ok(refusal.into_http())));
        }
        Either::Left(self.inner.call(request))
    }
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

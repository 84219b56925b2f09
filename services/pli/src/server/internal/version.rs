// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls in a version of the protocol between roles that is not understood are refused before they reach a service.

use pli_domain::protocol::RoleProtocol;
use tonic::Status;
use tonic::body::Body;

/// Refuses them.
pub fn understood(request: &http::Request<Body>) -> Result<(), Status> {
    // What is not text is not a version either.
    let said = request.headers().get(RoleProtocol::HEADER).map(|said| said.to_str().unwrap_or("?"));
    RoleProtocol::heard(said).map(|_| ()).map_err(|unknown| Status::failed_precondition(unknown.to_string()))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a new device asks the server before it takes itself for linked: whether it is listed, and whose its handle is. The
//! handle in an offer is told by whoever read the code; the server's directory binds it to an account.

use pli_api::directory::{LookupRequest, LookupResponse};
use pli_api::edge::{Binding, Call, client_frame, reply, server_frame};
use pli_api::{ErrorCode, common};
use pli_client_core::Core;
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::LinkFailure;
use super::meeting::{AGAIN_AFTER, REACHED_WITHIN, Servers, frame};
use crate::driver::now;
use crate::{Connection, TransportError};

const LOOKUP: &str = "/pli.directory.v1.Directory/Lookup";

/// What it hears.
pub(super) enum Answer {
    /// It is a device of the account, and the account has the handle.
    Listed,
    /// It is not authenticated.
    Refused(common::Error),
}

/// Asks until there is an answer. [`LinkFailure::Link`] where the handle is another account's.
pub(super) async fn ask(core: &mut Core, servers: &mut Servers) -> Result<Answer, LinkFailure> {
    let deadline = Instant::now() + REACHED_WITHIN;
    let mut why = LinkFailure::Transport(TransportError::Timeout(servers.addresses[0].to_string()));
    loop {
        let Ok(asked) = timeout_at(deadline, ask_once(core, servers)).await else { return Err(why) };
        why = match asked {
            Ok(Answer::Refused(error)) if error.code().is_temporary() => LinkFailure::Refused(Box::new(error)),
            Ok(answer) => return Ok(answer),
            Err(LinkFailure::Transport(error @ TransportError::WrongCertificate { .. })) => return Err(error.into()),
            Err(LinkFailure::Transport(error)) => LinkFailure::Transport(error),
            Err(LinkFailure::Refused(error)) if error.code().is_temporary() => LinkFailure::Refused(error),
            Err(error) => return Err(error),
        };
        if Instant::now() + AGAIN_AFTER >= deadline {
            return Err(why);
        }
        sleep(AGAIN_AFTER).await;
    }
}

async fn ask_once(core: &mut Core, servers: &mut Servers) -> Result<Answer, LinkFailure> {
    let (connection, host) = servers.open().await?;
    let Connection { exporter, .. } = connection;
    let (mut sink, mut stream) = connection.split();
    let handle = core.handle().to_string();
    let answer = loop {
        match stream.next().await?.frame {
            Some(server_frame::Frame::Hello(hello)) => {
                let answer = core.handshake(&hello, &host, (Binding::TlsExporter, exporter.as_slice()), now());
                sink.send(&[answer.map_err(|_| TransportError::Closed)?]).await?;
            }
            Some(server_frame::Frame::Ready(_)) => {
                let body = LookupRequest { handle: handle.clone() }.encode_to_vec().into();
                let call = Call { id: 1, method: LOOKUP.into(), body };
                sink.send(&[frame(client_frame::Frame::Call(call))]).await?;
            }
            Some(server_frame::Frame::Reply(answer)) if answer.id == 1 => break owner(core, answer.result)?,
            Some(server_frame::Frame::Close(close)) => break Answer::Refused(close.reason.unwrap_or_default()),
            _ => {}
        }
    };
    // Nothing else was asked for.
    let _ = sink.close().await;
    Ok(answer)
}

fn owner(core: &Core, result: Option<reply::Result>) -> Result<Answer, LinkFailure> {
    let found = match result {
        Some(reply::Result::Body(body)) => LookupResponse::decode(body).unwrap_or_default(),
        // Nobody has the handle.
        Some(reply::Result::Error(why)) if why.code() == ErrorCode::NotFound => LookupResponse::default(),
        Some(reply::Result::Error(why)) => return Err(LinkFailure::Refused(Box::new(why))),
        None => return Err(TransportError::Closed.into()),
    };
    core.owns_handle(&found)?;
    Ok(Answer::Listed)
}

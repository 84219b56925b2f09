// SPDX-License-Identifier: MIT OR Apache-2.0
//! A new device that was stopped before it heard whether it is listed.

use pli_api::edge::{Binding, server_frame};
use pli_api::{ErrorCode, common};
use pli_client_core::Core;

use super::{LinkFailure, profile_mark};
use crate::client::{ClientOptions, damaged, pin};
use crate::driver::{now, rows_of};
use crate::history::Rows;
use crate::profile::{self, Profile};
use crate::{Connection, Connector, TransportError};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// It is a device of the account; open it.
    Listed,
    /// Not yet, and it may still be: ask again in a while, or [`forget`] it.
    Undecided,
    /// It was never listed: nothing happened, and the profile is as new.
    Never,
    /// It was listed and is removed again.
    Removed,
}

/// Asks the server whether the device that this profile holds is listed.
pub async fn resume(options: &ClientOptions) -> Result<Resumed, LinkFailure> {
    let folder = profile::folder(&options.home, &options.server, &options.name);
    let profile = Profile::lock(&folder)?;
    let pin = pin(&profile, options.fingerprint)?;
    let store = profile.store()?;
    let until = profile_mark::undecided_until(&store)?;
    let mut core = Core::load(rand::random(), rows_of(&store)?, now()).map_err(|error| damaged(&folder, error))?;
    let rows = Rows::new(store);
    let connector = Connector::new(pin, options.transport).quic_port(options.quic_port);
    let connection = connector.open(&options.server).await?;
    match greet(&mut core, connection, &options.server.to_string()).await? {
        Ok(()) => {
            rows.commit_with(pli_client_core::ChangeSet::default(), vec![profile_mark::finished()]).await?;
            Ok(Resumed::Listed)
        }
        Err(why) if why.code() == ErrorCode::DeviceRemoved => Ok(Resumed::Removed),
        Err(why) if why.code() != ErrorCode::UnknownDevice => Err(LinkFailure::Refused(Box::new(why))),
        Err(_) if now() < until => Ok(Resumed::Undecided),
        Err(_) => {
            rows.clear().await?;
            Ok(Resumed::Never)
        }
    }
}

/// Gives up a link that is not finished: the profile is as new. Where the device is listed after all, its account sees it
/// and can remove it.
pub async fn forget(options: &ClientOptions) -> Result<(), LinkFailure> {
    let folder = profile::folder(&options.home, &options.server, &options.name);
    let profile = Profile::lock(&folder)?;
    Ok(Rows::new(profile.store()?).clear().await?)
}

/// Authenticates; the refusal says why not.
async fn greet(
    core: &mut Core,
    connection: Connection,
    host: &str,
) -> Result<Result<(), common::Error>, TransportError> {
    let exporter = connection.exporter;
    let (mut sink, mut stream) = connection.split();
    let ended = loop {
        match stream.next().await?.frame {
            Some(server_frame::Frame::Hello(hello)) => {
                let binding = (Binding::TlsExporter, exporter.as_slice());
                let answer = core.handshake(&hello, host, binding, now());
                sink.send(&[answer.map_err(|_| TransportError::Closed)?]).await?;
            }
            Some(server_frame::Frame::Ready(_)) => break Ok(()),
            Some(server_frame::Frame::Close(close)) => break Err(close.reason.unwrap_or_default()),
            _ => {}
        }
    };
    // Nothing was asked for.
    let _ = sink.close().await;
    Ok(ended)
}

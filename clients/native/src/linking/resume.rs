// SPDX-License-Identifier: MIT OR Apache-2.0
//! A new device that was stopped before it heard whether it is listed.

use pli_api::ErrorCode;
use pli_client_core::Core;

use super::meeting::{Servers, Stranger};
use super::{LinkFailure, Standing, profile_mark, proof};
use crate::Connector;
use crate::client::{ClientOptions, damaged, pin};
use crate::driver::{now, rows_of};
use crate::history::Rows;
use crate::profile::{self, Profile};

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

/// Asks the server whether the device that this profile holds is listed, and its handle the account's. Where it is another
/// account's nothing is kept. A profile whose link is finished, or that was never one of a companion, is listed as far as is
/// known, and not asked about.
pub async fn resume(options: &ClientOptions) -> Result<Resumed, LinkFailure> {
    let folder = profile::folder(&options.home, &options.server, &options.name);
    let profile = Profile::lock(&folder)?;
    let pin = pin(&profile, options.fingerprint)?;
    let store = profile.store()?;
    match profile_mark::of(&store)? {
        Standing::Begun => {}
        Standing::Linked => return Ok(Resumed::Listed),
        Standing::Fresh => return Ok(Resumed::Never),
    }
    let until = profile_mark::undecided_until(&store)?;
    let mut core = Core::load(rand::random(), rows_of(&store)?, now()).map_err(|error| damaged(&folder, error))?;
    let rows = Rows::new(store);
    let connector = Connector::new(pin, options.transport).quic_port(options.quic_port);
    let mut servers = Servers::new(options, connector);
    let why = match Box::pin(proof::ask(&mut core, &mut servers)).await {
        Ok(proof::Answer::Listed) => {
            rows.commit_with(pli_client_core::ChangeSet::default(), vec![profile_mark::finished()]).await?;
            return Ok(Resumed::Listed);
        }
        Ok(proof::Answer::Refused(why)) => why,
        Err(error) => {
            if matches!(error, LinkFailure::Link(_)) {
                rows.clear().await?;
            }
            return Err(error);
        }
    };
    match why.code() {
        ErrorCode::DeviceRemoved => Ok(Resumed::Removed),
        ErrorCode::UnknownDevice => {
            if Stranger::new(servers, profile).server_time().await.map_err(LinkFailure::of_call)? < until {
                return Ok(Resumed::Undecided);
            }
            rows.clear().await?;
            Ok(Resumed::Never)
        }
        _ => Err(LinkFailure::Refused(Box::new(why))),
    }
}

/// Gives up a link that is not finished: the profile is as new. Where the device is listed after all, its account sees it
/// and can remove it. A profile whose link is finished, or that was never one of a companion, is left as it is.
pub async fn forget(options: &ClientOptions) -> Result<(), LinkFailure> {
    let folder = profile::folder(&options.home, &options.server, &options.name);
    let profile = Profile::lock(&folder)?;
    let store = profile.store()?;
    if profile_mark::of(&store)? == Standing::Begun {
        Rows::new(store).clear().await?;
    }
    Ok(())
}

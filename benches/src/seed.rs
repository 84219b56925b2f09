// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data folder with many accounts, written through the ports: as large as an installation gets, in seconds.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pli_domain::{ConversationId, DeviceAddress, MlsEpoch};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::{Clock, DeviceListRecord, NewAccount, NewConversation, SystemClock};
use prost::Message;

use crate::load::{Device, conversation_of};

/// Writes that are under way at once; they share transactions.
const IN_FLIGHT: usize = 512;
/// What the conversations service keeps of a small group, in bytes; its content plays no part in sending.
const STATE_BYTES: usize = 1_024;

/// Fills `data` with the accounts `load.0` to `load.{accounts - 1}` and the `talks`, pairs of them that may write to each
/// other at epoch 1. Answers the devices and the conversations' ids, in order.
pub async fn seed(data: &Path, accounts: u64, talks: &[(u64, u64)]) -> Result<(Vec<Device>, Vec<ConversationId>)> {
    let engine = EmbeddedEngine::open(data, EmbeddedOptions::default()).context("the engine opens")?;
    let devices: Vec<Device> = (0..accounts).map(Device::new).collect::<Result<_>>()?;
    let (store, now) = (engine.accounts(), SystemClock.now());
    let accounts = devices.iter().map(|device| {
        let (identity, store) = (&device.identity, store.clone());
        let devices = vec![identity.address().device];
        let signed = identity.device_list().expect("is the first device").encode_to_vec().into();
        let account = NewAccount {
            account: identity.address().account,
            handle: identity.handle().clone(),
            identity_key: identity.identity_key(),
            devices: DeviceListRecord { version: 1, signed, devices },
            created_at: now,
        };
        async move { store.create(account).await }
    });
    futures::stream::iter(accounts).buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>().await?;
    let store = engine.conversations();
    let address = |n: u64| devices[n as usize].identity.address();
    let made = talks.iter().map(|&(a, b)| {
        let (store, id, mut roster) = (store.clone(), conversation_of(a, b), vec![address(a), address(b)]);
        roster.sort_unstable_by_key(|d: &DeviceAddress| (d.account, d.device));
        let state = Bytes::from(vec![0x5A; STATE_BYTES]);
        let new = NewConversation { conversation: id, epoch: MlsEpoch(1), roster, state, created_at: now };
        async move { store.create(new).await.map(|_| id) }
    });
    let ids = futures::stream::iter(made).buffered(IN_FLIGHT).try_collect().await?;
    engine.close().await;
    Ok((devices, ids))
}

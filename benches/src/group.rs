// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group of as many devices as it may have, made through the service by one bare member.

use std::path::Path;

use anyhow::{Result, ensure};
use bytes::Bytes;
use pli_api::common::PayloadRef;
use pli_api::conversations::commit_response::Outcome;
use pli_api::conversations::{CommitRequest, CommitResponse, CreateRequest, Object, PutPayloadRequest, object};
use pli_api::directory::DeviceListEntry;
use pli_client::core::identity::{Identity, ListChange};
use pli_client::core::mls::{Commit, Mls};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{ConversationId, DeviceAddress};
use pli_engine_embedded::{EmbeddedEngine, EmbeddedOptions};
use pli_ports::{Clock, DeviceListRecord, NewAccount, SystemClock};
use prost::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::Ready;
use crate::load::{Device, Session};

/// Its id.
pub const GROUP: ConversationId = ConversationId::from_bytes([7; 16]);

/// Fills `data` with so many accounts of so many devices each; answers the devices, those of an account together, its
/// first one first.
pub async fn seed(data: &Path, accounts: u64, each: u64) -> Result<Vec<Device>> {
    let engine = EmbeddedEngine::open(data, EmbeddedOptions::default())?;
    let mut all = Vec::new();
    for n in 0..accounts {
        let devices = account(n, each)?;
        engine.accounts().create(record(&devices)?).await?;
        all.extend(devices.into_iter().zip(n * each..).map(|(identity, seed)| Device::of(identity, seed)));
    }
    engine.close().await;
    Ok(all)
}

fn account(n: u64, each: u64) -> Result<Vec<Identity>> {
    let mut rng = ChaCha8Rng::seed_from_u64(n);
    let first = Identity::create(format!("load.{n}").parse()?, &mut rng);
    let (account, handle, key) = (first.address().account, first.handle().clone(), first.identity_key());
    let mut devices = vec![first];
    for _ in 1..each {
        devices.push(Identity::companion(account, handle.clone(), key, &mut rng)?);
    }
    Ok(devices)
}

fn record(devices: &[Identity]) -> Result<NewAccount> {
    let first = &devices[0];
    let mut signed = first.device_list().ok_or_else(|| anyhow::anyhow!("the first device signs"))?;
    for device in &devices[1..] {
        let entry = DeviceListEntry {
            device: Bytes::copy_from_slice(device.address().device.as_bytes()),
            key: Bytes::copy_from_slice(&device.device_key()),
            name: "another".into(),
        };
        let next = first.next_list(&signed, &ListChange::Add(entry));
        signed = next.ok_or_else(|| anyhow::anyhow!("a list cannot be signed"))?;
    }
    let ids = devices.iter().map(|device| device.address().device).collect();
    let version = devices.len() as u64;
    Ok(NewAccount {
        account: first.address().account,
        handle: first.handle().clone(),
        identity_key: first.identity_key(),
        devices: DeviceListRecord { version, signed: signed.encode_to_vec().into(), devices: ids },
        created_at: SystemClock.now(),
    })
}

/// The member that makes the group and its commits.
pub struct Maker {
    /// Its session.
    pub session: Session,
    /// Its state.
    pub mls: Mls,
    objects: u64,
}

impl Maker {
    /// Makes the group of `devices`, whose first one it is. Answers the second one's state too, which has joined.
    pub async fn make(ready: &Ready, devices: &[Device]) -> Result<(Self, Mls)> {
        let (first, others) = devices.split_first().ok_or_else(|| anyhow::anyhow!("nobody is in the group"))?;
        let mut maker = Self { session: first.connect(ready).await?, mls: first.mls(), objects: 0 };
        let info = maker.mls.create(GROUP)?;
        let create = CreateRequest { group_info: Some(inline(info)) };
        maker.session.call("/pli.conversations.v1.Conversations/Create", &create).await?;
        let mut second = others[0].mls();
        let mut add = Vec::with_capacity(others.len());
        for (n, device) in others.iter().enumerate() {
            let package = match n {
                0 => second.key_packages(1)?,
                _ => device.mls().key_packages(1)?,
            };
            add.push((device.identity.address(), device.identity.device_key().to_vec(), package.concat()));
        }
        let welcome = maker.commit(&add, &[]).await?.welcome;
        second.join(&welcome, None)?;
        Ok((maker, second))
    }

    /// Makes and offers a commit, which has to win; without anything to add or remove it renews the member's own keys.
    pub async fn commit(
        &mut self,
        add: &[(DeviceAddress, Vec<u8>, Vec<u8>)],
        remove: &[DeviceAddress],
    ) -> Result<Commit> {
        let commit = self.mls.commit(GROUP, add, remove)?;
        self.offer(&commit).await?;
        Ok(commit)
    }

    /// Offers a commit that was made.
    pub async fn offer(&mut self, commit: &Commit) -> Result<()> {
        let welcome = match commit.welcome.is_empty() {
            true => None,
            false => Some(self.object(&commit.welcome).await?),
        };
        let request = CommitRequest {
            conversation: Bytes::copy_from_slice(GROUP.as_bytes()),
            epoch: commit.epoch,
            commit: Some(self.object(&commit.commit).await?),
            welcome,
            group_info: Some(self.object(&commit.group_info).await?),
        };
        let answer = self.session.call("/pli.conversations.v1.Conversations/Commit", &request).await?;
        let answer = CommitResponse::decode(answer)?;
        ensure!(matches!(answer.outcome, Some(Outcome::Won(_))), "the commit is lost: {answer:?}");
        self.mls.merge_commit(GROUP)?;
        drop(self.mls.take_changes());
        Ok(())
    }

    async fn object(&mut self, whole: &[u8]) -> Result<Object> {
        if whole.len() <= PAGE_BYTES_MAX {
            return Ok(inline(whole.to_vec()));
        }
        self.objects += 1;
        let id = Bytes::copy_from_slice(&u128::from(self.objects).to_be_bytes());
        for (n, page) in whole.chunks(PAGE_BYTES_MAX).enumerate() {
            let (offset, size) = ((n * PAGE_BYTES_MAX) as u64, whole.len() as u64);
            let page = PutPayloadRequest { id: id.clone(), bytes: Bytes::copy_from_slice(page), offset, size };
            self.session.call("/pli.conversations.v1.Conversations/PutPayload", &page).await?;
        }
        let sha256 = Bytes::copy_from_slice(&Sha256::digest(whole));
        Ok(Object { object: Some(object::Object::Ref(PayloadRef { id, size: whole.len() as u64, sha256 })) })
    }
}

fn inline(bytes: Vec<u8>) -> Object {
    Object { object: Some(object::Object::Inline(bytes.into())) }
}

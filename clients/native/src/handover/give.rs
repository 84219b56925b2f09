// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device that has the history.

use pli_api::ErrorCode;
use pli_client_core::archive::{Archive, ArchiveError, ArchiveName, ArchiveRow, PART_BYTES, open, seal};
use pli_domain::DeviceId;

use super::calls::Upload;
use super::files::Sealed;
use super::record::Record;
use super::turn::Turn;
use super::{HandoverError, Progress};
use crate::Client;
use crate::driver::now;

/// Archives whose number turned out to be taken, at one call.
const TRIES_MAX: usize = 8;

/// What was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandedOver {
    /// Messages in it.
    pub messages: usize,
    /// Older ones were left out, because all of them would not fit.
    pub cut: bool,
    /// Parts that were there already: an earlier call had been stopped.
    pub resumed: u32,
    /// Parts in all.
    pub parts: u32,
}

impl Client {
    /// Hands the history over to a device that this one has linked; on return it is whole on the server, for 7 days. Goes on
    /// with what an earlier call has begun, and waits for one that is under way. `told` hears how far it is. The client must be
    /// online for it.
    pub async fn hand_history_over(
        &self,
        device: DeviceId,
        mut told: impl FnMut(Progress) + Send,
    ) -> Result<HandedOver, HandoverError> {
        let listed = move |core: &pli_client_core::Core| core.devices().iter().any(|own| own.device == device);
        if !self.query(listed).await? {
            return Err(HandoverError::NotListed);
        }
        let turn = self.histories().next().await;
        let mut record = self.history_record(device).await?;
        let mut taken = None;
        for _ in 0..TRIES_MAX {
            let (sealed, archive) = self.sealed(&turn, device, &record).await?;
            let given = self.upload(device, &record, &sealed, &mut told).await;
            let file = self.file_for(device, &record);
            match given {
                Ok(resumed) => {
                    record.next = record.next.saturating_add(1);
                    self.keep_history_record(device, &record).await?;
                    turn.work(move || file.delete()).await?;
                    let parts = parts(&sealed);
                    return Ok(HandedOver { messages: archive.rows.len(), cut: archive.cut, resumed, parts });
                }
                // Another archive has this number, or this one was handed over and is over: the next one is made anew.
                Err(HandoverError::Refused(why)) if is_over(why.code()) => {
                    turn.work(move || file.delete()).await?;
                    record.next = record.next.saturating_add(1);
                    self.keep_history_record(device, &record).await?;
                    taken = Some(why);
                }
                Err(error) => return Err(error),
            }
        }
        Err(taken.map_or(HandoverError::Unreachable, HandoverError::Refused))
    }

    async fn name_for(&self, device: DeviceId, number: u32) -> Result<ArchiveName, HandoverError> {
        let account = self.query(|core| core.address().account).await?;
        Ok(ArchiveName { account, device, number })
    }

    fn file_for(&self, device: DeviceId, record: &Record) -> Sealed {
        Sealed::at(self.folder(), &format!("out-{device}-{}", record.next))
    }

    /// The archive that an earlier call has sealed, or a new one, durable.
    async fn sealed(&self, turn: &Turn, device: DeviceId, record: &Record) -> Result<Whole, HandoverError> {
        let (name, file) = (self.name_for(device, record.next).await?, self.file_for(device, record));
        let (of_before, with) = (file.clone(), record.clone());
        if let Some(whole) = turn.work(move || before(&of_before, &with, &name)).await? {
            return Ok(whole);
        }
        let chats = self.query(pli_client_core::Core::chats_with_parts).await?;
        let (rows, with) = (self.rows().archived(chats).await?, record.clone());
        turn.work(move || made(&file, &with, &name, rows)).await
    }

    /// Puts what is missing and finishes; answers how many parts were there.
    async fn upload(
        &self,
        device: DeviceId,
        record: &Record,
        sealed: &[u8],
        told: &mut (impl FnMut(Progress) + Send),
    ) -> Result<u32, HandoverError> {
        let id = |name: ArchiveName| Upload { client: self, id: name.upload(&record.secret) };
        if let Some(before) = record.next.checked_sub(1).filter(|before| *before > 0) {
            // This one has all that the one before had.
            id(self.name_for(device, before).await?).delete().await?;
        }
        let upload = id(self.name_for(device, record.next).await?);
        let there = upload.begin(sealed.len() as u64).await?.there;
        let parts = parts(sealed);
        // The first part, which has the salt, is put in any case: where the parts that are there are of another archive,
        // its answer is that they differ.
        let has = |number: u32| {
            let bit = number - 1;
            number > 1 && there.get(bit as usize / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
        };
        let mut progress = Progress { done: (1..=parts).filter(|number| has(*number)).count() as u32, parts };
        let resumed = progress.done + there.first().map_or(0, |byte| u32::from(byte & 1));
        told(progress);
        for (number, part) in (1..).zip(sealed.chunks(PART_BYTES)).filter(|(number, _)| !has(*number)) {
            upload.put(number, part).await?;
            progress.done += 1;
            told(progress);
        }
        upload.finish().await?;
        Ok(resumed)
    }
}

/// An archive, as it is uploaded and as it says.
type Whole = (Vec<u8>, Archive);

/// What an earlier call has sealed, where it is there and whole.
fn before(file: &Sealed, record: &Record, name: &ArchiveName) -> Result<Option<Whole>, HandoverError> {
    let Some(sealed) = file.read()? else { return Ok(None) };
    let Ok(plain) = open(&record.secret, name, &sealed) else { return Ok(None) };
    Ok(Some((sealed, Archive::decode(&plain)?)))
}

/// Seals these rows, durable.
fn made(file: &Sealed, record: &Record, name: &ArchiveName, rows: Vec<ArchiveRow>) -> Result<Whole, HandoverError> {
    let archive = Archive::of(rows, now().0);
    let sealed = seal(&record.secret, name, rand::random(), &archive.encode()).ok_or(ArchiveError::Contents)?;
    file.write(&sealed)?;
    Ok((sealed, archive))
}

fn parts(sealed: &[u8]) -> u32 {
    u32::try_from(sealed.len() / PART_BYTES).unwrap_or(u32::MAX)
}

const fn is_over(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::IdTaken | ErrorCode::UploadUnknown | ErrorCode::PartConflict)
}

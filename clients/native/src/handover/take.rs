// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device that takes the history in.

use pli_api::ErrorCode;
use pli_api::media::GetUploadResponse;
use pli_client_core::archive::{Archive, ArchiveError, ArchiveName, PART_BYTES, PARTS_MAX, open};

use super::calls::Upload;
use super::files::{Parts, Sealed};
use super::record::Record;
use super::turn::Turn;
use super::{HandoverError, Progress};
use crate::Client;

/// Archives after the last one that was taken in, of which one may be there: the others were not taken in.
const AHEAD_MAX: u32 = 64;

/// What was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenIn {
    /// Messages in the archive.
    pub messages: usize,
    /// Those that this device did not have.
    pub new: usize,
    /// Older ones were left out of it.
    pub cut: bool,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
}

impl Client {
    /// Takes in the history that another device has handed over: fetches its parts, opens them, and adds the messages that
    /// this device does not have to their conversations, before everything that it has shown itself. Goes on with what an
    /// earlier call has fetched, and waits for one that is under way; deletes the upload at the end. The client must be online
    /// for it.
    pub async fn take_history_in(&self, mut told: impl FnMut(Progress) + Send) -> Result<TakenIn, HandoverError> {
        let own = self.query(|core| core.address()).await?;
        let turn = self.histories().next().await;
        let mut record = self.history_record(own.device).await?;
        let name = |number| ArchiveName { account: own.account, device: own.device, number };
        let (number, found) = self.newest(&record, name).await?.ok_or(HandoverError::Nothing)?;
        let upload = Upload { client: self, id: name(number).upload(&record.secret) };
        let file = Sealed::at(self.folder(), &format!("in-{number}"));
        let (only, folder) = (file.clone(), self.folder().to_path_buf());
        turn.work(move || only.delete_others(&folder, "in-")).await?;
        let kept = fetched(&upload, &found, (&turn, file.clone()), &mut told).await?;
        let (with, of, opening) = (record.clone(), name(number), file.clone());
        let archive = turn.work(move || opened(&with, &of, kept, &opening)).await?;
        let (messages, cut, made_at_ms) = (archive.rows.len(), archive.cut, archive.made_at_ms);
        let new = self.rows().take_in(own.account, archive.rows).await?;
        record.next = number.saturating_add(1);
        self.keep_history_record(own.device, &record).await?;
        // It is taken in, whether or not the server hears that nobody needs it any more.
        if let Err(error) = upload.delete().await {
            tracing::debug!(%error, "the upload of a history that was taken in stays until it expires");
        }
        turn.work(move || file.delete()).await?;
        Ok(TakenIn { messages, new, cut, made_at_ms })
    }

    /// The newest archive that is there.
    async fn newest(
        &self,
        record: &Record,
        name: impl Fn(u32) -> ArchiveName,
    ) -> Result<Option<(u32, GetUploadResponse)>, HandoverError> {
        let mut newest = None;
        for number in record.next..record.next.saturating_add(AHEAD_MAX) {
            let upload = Upload { client: self, id: name(number).upload(&record.secret) };
            if let Some(found) = upload.get().await? {
                newest = Some((number, found));
            } else if newest.is_some() {
                break;
            }
        }
        Ok(newest)
    }
}

/// The file with every part, those that were in it already included.
async fn fetched(
    upload: &Upload<'_>,
    found: &GetUploadResponse,
    (turn, file): (&Turn, Sealed),
    told: &mut (impl FnMut(Progress) + Send),
) -> Result<Parts, HandoverError> {
    let length = usize::try_from(found.bytes).unwrap_or(usize::MAX);
    let parts = u32::try_from(length / PART_BYTES).unwrap_or(u32::MAX);
    if parts == 0 || parts > PARTS_MAX || !length.is_multiple_of(PART_BYTES) {
        return Err(ArchiveError::Length(length).into());
    }
    let there = found.there.iter().map(|byte| byte.count_ones()).sum();
    if !found.finished {
        return Err(HandoverError::Unfinished(Progress { done: there, parts }));
    }
    let (mut kept, mut done) = turn.work(move || file.parts(parts)).await?;
    told(Progress { done, parts });
    while done < parts {
        let part = match upload.part(done + 1).await {
            Err(HandoverError::Refused(why)) if why.code() == ErrorCode::UploadUnknown => {
                return Err(HandoverError::Nothing);
            }
            part => part?,
        };
        if part.len() != PART_BYTES {
            return Err(ArchiveError::Part(done + 1).into());
        }
        kept = turn.work(move || kept.add(&part).map(|()| kept)).await?;
        done += 1;
        told(Progress { done, parts });
    }
    Ok(kept)
}

/// What does not open is not kept: the next call fetches it again.
fn opened(record: &Record, name: &ArchiveName, kept: Parts, file: &Sealed) -> Result<Archive, HandoverError> {
    let sealed = kept.read()?;
    let archive = open(&record.secret, name, &sealed).and_then(|plain| Archive::decode(&plain));
    if archive.is_err() {
        file.delete()?;
    }
    Ok(archive?)
}

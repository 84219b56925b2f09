// SPDX-License-Identifier: MIT OR Apache-2.0
//! WaitBlob.

use std::time::Duration;

use bytes::Bytes;
use pli_api::Caller;
use pli_api::links::{WaitBlobRequest, WaitBlobResponse};
use pli_ports::{Access, GetBlobError};
use pli_runtime::limits::address_key;
use tokio::time::{Instant, sleep_until};

use crate::access::{id, number, party};
use crate::error::WaitError;
use crate::service::Inner;

/// Who waits looks at the store again after this: the other side's next step, when it goes by itself, comes soon …
const LOOK_AFTER_MIN: Duration = Duration::from_millis(100);
/// … then ever later, to this: a person looks at a screen.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(1);

impl Inner {
    /// The other side's blob, waited for within bounds. Dropping the call ends the wait.
    pub(crate) async fn wait(&self, caller: Caller, request: WaitBlobRequest) -> Result<WaitBlobResponse, WaitError> {
        let id = id(&request.rendezvous)?;
        let party = party(&caller, request.side(), &request.secret)?;
        let number = number(request.number)?;
        self.limits.calls.take(&address_key(caller.address), 1)?;
        let wait = Duration::from_millis(request.wait_ms.min(self.config.wait_ms).into());
        let _place = if wait.is_zero() { None } else { Some(self.limits.wait()?) };
        let _waiting = self.metrics.waiting();
        let end = Instant::now() + wait;
        let mut after = LOOK_AFTER_MIN;
        let blob = loop {
            let found = self.look(Access { id, party, now: self.clock.now() }, number).await?;
            if found.is_some() || Instant::now() >= end {
                break found;
            }
            sleep_until((Instant::now() + after).min(end)).await;
            after = (after * 3 / 2).min(LOOK_AFTER_MAX);
        };
        self.metrics.waited(blob.is_some());
        Ok(WaitBlobResponse { blob: blob.unwrap_or_default() })
    }

    async fn look(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        self.metrics.looks.add(1, &[]);
        self.links.blob(access, number).await
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! ReportFailure.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pli_api::conversations::{Object, ReportFailureRequest, ReportFailureResponse, object};
use pli_api::log::Content;
use pli_api::{Caller, address};
use pli_domain::DeviceAddress;

use crate::derive;
use crate::error::{Denied, ReportError};
use crate::fanout::Letter;
use crate::service::{Inner, Membership};

/// Most bytes of a reason.
pub(crate) const REASON_BYTES_MAX: usize = 64;
/// Most devices that one report asks to renew their keys.
pub(crate) const RENEW_MAX: usize = 8;
/// A device is asked once in so long by the same one in the same epoch.
const ASKED_EVERY: Duration = Duration::from_secs(3_600);

impl Inner {
    /// Counts a commit that a device could not process, tells operators, and asks those to renew their keys whom the device
    /// trusts to bring it back. It re-joins on its own.
    pub(crate) async fn report_failure(
        &self,
        caller: Caller,
        request: ReportFailureRequest,
    ) -> Result<ReportFailureResponse, ReportError> {
        let caller = self.caller(caller, &self.limits.changes)?;
        let membership = self.membership(&request.conversation, caller).await?;
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let reason = request.reason.as_str();
        if reason.len() > REASON_BYTES_MAX || !reason.bytes().all(word) {
            return Err(ReportError::Reason);
        }
        if request.renew.len() > RENEW_MAX {
            return Err(ReportError::TooMany(request.renew.len()));
        }
        let asked = request.renew.iter().map(|device| address("renew", Some(device)));
        let asked: BTreeSet<DeviceAddress> = asked.collect::<Result<_, _>>().map_err(Denied::from)?;
        // Whoever asks has reported before.
        if asked.is_empty() {
            self.metrics.failures.add(1, &[]);
            let conversation = membership.conversation;
            tracing::warn!(?conversation, epoch = request.epoch, reason, "a device could not process a commit");
        }
        self.ask_to_renew(&membership, &asked).await?;
        Ok(ReportFailureResponse {})
    }

    /// Straight to these devices, whatever way messages to all of the group take: the order does not matter.
    async fn ask_to_renew(&self, membership: &Membership, asked: &BTreeSet<DeviceAddress>) -> Result<(), ReportError> {
        let (conversation, caller, epoch) = (membership.conversation, membership.caller, membership.head.epoch);
        let asked = membership.roster.iter().copied().filter(|device| *device != caller && asked.contains(device));
        let accepted_at = self.ports.clock.now();
        let hour = accepted_at.0 / ASKED_EVERY.as_millis() as u64;
        let asking = |device| derive::renewal_send(conversation, caller.device, device, epoch, hour);
        let entries = asked.flat_map(|device| {
            let send_id = asking(device.device);
            let letter = Letter {
                sender: caller,
                send_id,
                conversation,
                epoch,
                content: Content::Renew,
                body: Object { object: Some(object::Object::Inline(Bytes::new())) },
                accepted_at,
            };
            self.entries(&letter, [device], |_| derive::renewal_entry(send_id))
        });
        self.append(entries.collect()).await?;
        Ok(())
    }
}

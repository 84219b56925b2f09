// SPDX-License-Identifier: MIT OR Apache-2.0
//! ReportFailure.

use pli_api::Caller;
use pli_api::conversations::{ReportFailureRequest, ReportFailureResponse};

use crate::error::ReportError;
use crate::service::Inner;

/// Most bytes of a reason.
pub(crate) const REASON_BYTES_MAX: usize = 64;

impl Inner {
    /// Counts a commit that a device could not process, and tells operators. The device re-joins on its own.
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
        self.metrics.failures.add(1, &[]);
        let conversation = membership.conversation;
        tracing::warn!(?conversation, epoch = request.epoch, reason, "a device could not process a commit");
        Ok(ReportFailureResponse {})
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every message of the contracts. The first byte of an input chooses the message.

use prost::Message;

/// A message of the contracts.
#[derive(Debug, Clone, Copy)]
pub struct Contract {
    /// As the contracts call it.
    pub name: &'static str,
    run: fn(&[u8]),
}

macro_rules! contracts {
    ($($module:ident: $($message:ident)+;)+) => {
        /// All of them; the place is the second byte of an input, so that new ones stand at the end.
        pub const CONTRACTS: &[Contract] = &[$($(Contract {
            name: concat!("pli.", stringify!($module), ".v1.", stringify!($message)),
            run: round::<pli_api::$module::$message>,
        },)+)+];
    };
}

contracts! {
    common: DeviceAddress PayloadRef Error;
    conversations: Object CreateRequest CreateResponse CommitRequest CommitResponse CommitWon CommitLost
        EpochCommit ProposeRequest ProposeResponse GetCommitsRequest GetCommitsResponse GetGroupInfoRequest
        GetGroupInfoResponse ListRequest ListResponse ConversationEpoch ReportFailureRequest
        ReportFailureResponse FetchPayloadRequest FetchPayloadResponse PutPayloadRequest PutPayloadResponse
        GetRosterRequest GetRosterResponse;
    delivery: OwnerRequest OwnerReply Announce Registered ReadPage Delivery Page GapRange Ack Withdraw
        RemoveDevice Removed NotReady ReceiptPart QueryReceipts ReceiptVerdicts EdgeSignal Doorbell
        DoorbellBatch Notice Displace DeviceRemoved RepeatAnnouncements FloorRaised;
    directory: DeviceList DeviceListEntry SignedDeviceList RegisterRequest RegisterResponse LookupRequest
        LookupResponse GetDeviceListsRequest GetDeviceListsResponse AccountDevices PutDeviceListRequest
        PutDeviceListResponse PublishKeyPackagesRequest PublishKeyPackagesResponse ClaimKeyPackagesRequest
        ClaimKeyPackagesResponse DeviceKeyPackage GetDeviceKeyRequest GetDeviceKeyResponse;
    edge: ClientFrame ServerFrame ServerHello ClientHello Ready Limits SendBatch Send SendResults SendResult
        Accepted Pending SettledBatch Settled Stored Resend Deliver CaughtUp Gap Ack Call Reply EphemeralSignal
        Ping Pong GoAway Close Notice KeyPackagesLow ServerInfo;
    links: OpenRendezvousRequest OpenRendezvousResponse JoinRendezvousRequest JoinRendezvousResponse
        PutBlobRequest PutBlobResponse WaitBlobRequest WaitBlobResponse;
    log: Envelope Item Entry;
    sealed: Frame LifeSpan Addressed;
    media: BeginUploadRequest BeginUploadResponse GetUploadRequest GetUploadResponse PutPartRequest PutPartResponse
        FinishUploadRequest FinishUploadResponse GetPartRequest GetPartResponse DeleteUploadRequest
        DeleteUploadResponse;
    sealed: LinkHello LinkSealed LinkOffer LinkConsent LinkVerdict LinkStored ArchiveHead ArchiveRow;
}

/// What decodes is encoded, and that decodes to the same.
fn round<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(read) = M::decode(bytes) else { return };
    let written = read.encode_to_vec();
    assert_eq!(written.len(), read.encoded_len());
    let again = M::decode(written.as_slice()).expect("what is encoded decodes");
    // Not that they are equal: a number with a fraction that is none is not equal to itself.
    assert_eq!(again.encode_to_vec(), written, "{}", std::any::type_name::<M>());
}

pub(super) fn any(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    if let Some(contract) = CONTRACTS.get(usize::from(*first)) {
        (contract.run)(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_contracts_is_read() {
        let pool = prost_reflect::DescriptorPool::decode(pli_api::DESCRIPTORS).expect("the contracts");
        let known = |name: &str| CONTRACTS.iter().any(|contract| contract.name == name);
        let names = pool.all_messages().map(|message| message.full_name().to_owned());
        let missing: Vec<String> = names.filter(|name| name.starts_with("pli.") && !known(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

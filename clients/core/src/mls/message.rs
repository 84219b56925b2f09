// SPDX-License-Identifier: MIT OR Apache-2.0
//! Application messages.

use bytes::Bytes;
use openmls::framing::errors::{MessageDecryptionError, SecretTreeError};
use openmls::group::ValidationError;
use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, PrivateMessageIn, ProcessMessageError, ProcessedMessageContent,
};
use pli_domain::{Class, ConversationId, DeviceAddress, SendId};

use super::{Mls, MlsError, device_of, refused};
use crate::outbox::Sealed;

/// An opened message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who sealed it, by the leaf's credential.
    pub sender: DeviceAddress,
    /// What was sealed.
    pub plaintext: Vec<u8>,
}

/// Why a message cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This device is not in the group.
    #[error("this device is not in the group")]
    NoGroup,
    /// Sealed in an epoch that this device has not reached: catch up first.
    #[error("sealed in epoch {0}, which is not here yet")]
    Future(u64),
    /// The keys are gone: of an epoch long over, or far behind later messages of the same sender.
    #[error("sealed in epoch {0} with a key that is gone")]
    TooOld(u64),
    /// The same ciphertext was opened before.
    #[error("opened before")]
    Repeated,
    /// The send id or class of the envelope is not the one that was sealed.
    #[error("the envelope is not the sealed one's")]
    OtherEnvelope,
    /// Anything else: damaged, forged, or of a device that is not in the group.
    #[error("cannot be opened: {0}")]
    Invalid(String),
}

/// What a message is bound to besides its content.
fn authenticated(send_id: SendId, class: Class) -> Vec<u8> {
    let class = match class {
        Class::Live => 1,
        Class::Urgent => 2,
        Class::Message => 3,
        Class::Tick => 4,
    };
    [send_id.as_bytes().as_slice(), &[class]].concat()
}

impl Mls {
    /// Seals a message in the current epoch. Each call uses up a key: commit the changes before the body leaves.
    pub fn seal(
        &mut self,
        id: ConversationId,
        send_id: SendId,
        class: Class,
        plaintext: &[u8],
    ) -> Result<Sealed, MlsError> {
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).filter(|g| !g.store.is_empty()).ok_or(MlsError::NoGroup)?;
        group.mls.set_aad(authenticated(send_id, class));
        let provider = self.provider.on(&group.store);
        let message =
            group.mls.create_message(&provider, &self.signer, plaintext).map_err(refused("sealing a message"))?;
        let body = Bytes::from(message.to_bytes().map_err(refused("encoding a message"))?);
        Ok(Sealed { epoch: group.mls.epoch().as_u64(), body })
    }

    /// Opens a message that came under this send id and class.
    pub fn open(
        &mut self,
        id: ConversationId,
        send_id: SendId,
        class: Class,
        body: &[u8],
    ) -> Result<Opened, OpenError> {
        let message = private_message(body)?;
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).filter(|g| !g.store.is_empty()).ok_or(OpenError::NoGroup)?;
        let (theirs, ours) = (message.epoch().as_u64(), group.mls.epoch().as_u64());
        if theirs > ours {
            return Err(OpenError::Future(theirs));
        }
        let provider = self.provider.on(&group.store);
        let processed = group.mls.process_message(&provider, message).map_err(|error| classify(&error, theirs))?;
        if processed.aad() != authenticated(send_id, class) {
            return Err(OpenError::OtherEnvelope);
        }
        let sender = device_of(processed.credential()).ok_or(OpenError::Invalid("credential".into()))?;
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                Ok(Opened { sender, plaintext: message.into_bytes() })
            }
            ProcessedMessageContent::OwnPrivateMessage => Err(OpenError::Repeated),
            _ => Err(OpenError::Invalid("not an application message".into())),
        }
    }
}

fn private_message(body: &[u8]) -> Result<PrivateMessageIn, OpenError> {
    match MlsMessageIn::tls_deserialize_exact_bytes(body).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::PrivateMessage(message)) => Ok(message),
        _ => Err(OpenError::Invalid("not a PrivateMessage".into())),
    }
}

fn classify<E: std::error::Error>(error: &ProcessMessageError<E>, epoch: u64) -> OpenError {
    match error {
        ProcessMessageError::ValidationError(
            ValidationError::NoPastEpochData
            | ValidationError::UnableToDecrypt(MessageDecryptionError::SecretTreeError(
                SecretTreeError::TooDistantInThePast,
            )),
        ) => OpenError::TooOld(epoch),
        ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(
            MessageDecryptionError::SecretTreeError(SecretTreeError::SecretReuseError),
        )) => OpenError::Repeated,
        other => OpenError::Invalid(other.to_string()),
    }
}

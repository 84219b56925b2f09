// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who calls, as which side of which rendezvous.

use bytes::Bytes;
use pli_api::links::Side as WireSide;
use pli_api::{Caller, ids};
use pli_domain::limits::RENDEZVOUS_BLOBS_MAX;
use pli_domain::{Party, RendezvousId, SecretHash};
use sha2::{Digest, Sha256};

use crate::error::{InvalidField, Unnamed};

/// The id in field `rendezvous`.
pub(crate) fn id(rendezvous: &Bytes) -> Result<RendezvousId, InvalidField> {
    Ok(ids::from("rendezvous", rendezvous)?)
}

/// A hash that the caller has made.
pub(crate) fn hash(field: &'static str, bytes: &Bytes) -> Result<SecretHash, InvalidField> {
    let bytes = bytes.as_ref().try_into().map_err(|_| InvalidField::Secret(field))?;
    Ok(SecretHash::from_bytes(bytes))
}

/// The hash of the secret in field `secret`; from here on nobody has the secret itself. Comparing hashes tells nothing
/// by the time it takes: who asks cannot choose their bytes.
pub(crate) fn hashed(secret: &Bytes) -> Result<SecretHash, InvalidField> {
    if secret.len() != 32 {
        return Err(InvalidField::Secret("secret"));
    }
    Ok(SecretHash::from_bytes(Sha256::digest(secret).into()))
}

/// The side that the caller says it is, with what it shows for it. The approver shows its device too.
pub(crate) fn party(caller: &Caller, side: WireSide, secret: &Bytes) -> Result<Party, Unnamed> {
    match side {
        WireSide::Unspecified => Err(InvalidField::Side.into()),
        WireSide::Opener => Ok(Party::Opener(hashed(secret)?)),
        WireSide::Approver => {
            let device = caller.authenticated().map_err(|refused| Unnamed::Caller(Box::new(refused)))?;
            Ok(Party::Approver(hashed(secret)?, device))
        }
    }
}

/// The number of a blob.
pub(crate) fn number(number: u32) -> Result<u8, InvalidField> {
    let small = u8::try_from(number).ok().filter(|number| (1..=RENDEZVOUS_BLOBS_MAX).contains(number));
    small.ok_or(InvalidField::Number(number))
}

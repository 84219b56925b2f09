// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linking a companion device, without I/O: a new device and the account's first device exchange five sealed blobs at a
//! rendezvous (docs/protocol.md, "Linking a device").
//!
//! The new device shows a [`LinkCode`]. Whoever has read it can open blob 1, and knows by the hash in the code that the
//! ephemeral key in it is the new device's. From blob 2 on, which is sealed to that key, the blobs are for these two
//! devices alone: who saw the code, or carries the blobs, cannot read or make one. Each key depends on everything that was
//! said before, so a blob that is changed, left out, said again, or of another link does not open.
//!
//! Each step is a type of its own that the next one takes up, so no step can be left out, repeated or swapped:
//!
//! - new device: [`NewDevice`] (shows the code, blob 1), [`Joining`] (a person is asked), [`Consented`] (blob 3),
//!   [`Listed`] (blob 5);
//! - first device: [`Approver`] (has read the code), [`Approving`] (blob 2, a person is asked), [`Newcomer`] (what goes
//!   into the device list; blob 4), [`Told`] (blob 5).
//!
//! Whoever says no says it at once: the new device in blob 3, the first device in blob 4, which does not wait for blob 3
//! then.
//!
//! Both people are shown the same six digits, and each the name that the other side gave. The account's secret identity
//! key does not travel: the new device never signs a device list.

mod code;
mod first;
mod keys;
mod new_device;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
mod wire;

pub use code::{InvalidCode, LinkCode, Rendezvous};
pub use first::{Approver, Approving, Newcomer, Refusal, Told};
pub use new_device::{Consented, Joining, Listed, NewDevice};

use crate::content::InvalidGroupName;
use crate::identity::DeviceListError;

/// In the place of blob 3: the new device ended before anybody read its code. Not sealed, since nobody has shown a key to
/// seal it with; whoever else puts it there could as well have kept every blob back.
pub const WITHDRAWN: &[u8] = b"withdrawn";

/// Why a link cannot go on. Nothing was changed by the blob that it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The ephemeral key is not the one that the code names.
    #[error(
        "the key at the rendezvous is not the one that the code names: somebody else answers; begin again with a new code"
    )]
    OtherKey,
    /// It does not open: changed, of another step, or of another link.
    #[error(
        "blob {0} cannot be opened: it was changed on its way, or belongs to another link; begin again with a new code"
    )]
    Sealed(u32),
    /// It opens, and is not what it should be.
    #[error("blob {0} does not say what it should; update pli on both devices and begin again")]
    Malformed(u32),
    /// The name of the new device.
    #[error("the name of the new device cannot be used: {0}")]
    Name(DeviceNameError),
    /// What it says is for another server.
    #[error(
        "the code is for the server {code}, this profile is on {here}; if they are one server, name it alike with --server on both devices, else begin again with a device of {here}"
    )]
    OtherHost {
        /// In the code.
        code: String,
        /// Of this profile.
        here: String,
    },
    /// The person at the new device said no.
    #[error("the new device declined: its user said no, or its program was ended")]
    Declined,
    /// Its program was ended before it knew of this device: [`WITHDRAWN`].
    #[error("the new device ended before its code was read; begin again there")]
    Withdrawn,
    /// The first device said no, and why.
    #[error("the other device refused: {0}")]
    Refused(Refusal),
    /// The new device's consent is not signed by its key, or is of another link.
    #[error("the signature of the new device does not verify; begin again with a new code")]
    Signature,
    /// No group could take the new device in.
    #[error("the key package of the new device is not valid for it; update pli on both devices and begin again")]
    KeyPackage,
    /// The device list is not to be believed.
    #[error("the account's device list is not accepted: {0}; begin again with a new code")]
    List(DeviceListError),
    /// The device list does not name the new device as it is.
    #[error("the device list that came does not name this device; begin again with a new code")]
    NotListed,
    /// The account that was joined is not the one that the server has under this handle.
    #[error(
        "the account that answered says that it is @{0}, and the server has another one under that handle: somebody else has read the code; nothing is kept of it, begin again with a new code"
    )]
    OtherOwner(pli_domain::Handle),
    /// The device that answered cannot sign device lists.
    #[error("only the account's first device approves others; run this there")]
    NotTheFirst,
    /// The account has no device list here yet.
    #[error("the account's device list is not known yet; try again when the server was reached")]
    NoListYet,
}

/// Why a device cannot be called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    /// As for a group's name.
    #[error("{}", .0.to_string().replace("a group's name", "a device's name"))]
    Text(#[from] InvalidGroupName),
    /// Too long.
    #[error("a device's name has {0} bytes; at most {max} fit", max = pli_domain::limits::DEVICE_NAME_BYTES_MAX)]
    TooLong(usize),
}

/// The name of a device as it may be shown and signed: nothing invisible, at most
/// [`pli_domain::limits::DEVICE_NAME_BYTES_MAX`] bytes.
pub fn device_name(text: &str) -> Result<&str, DeviceNameError> {
    let name = crate::content::group_name(text)?;
    if name.len() > pli_domain::limits::DEVICE_NAME_BYTES_MAX {
        return Err(DeviceNameError::TooLong(name.len()));
    }
    Ok(name)
}

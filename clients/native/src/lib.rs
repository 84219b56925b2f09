// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client on a computer: everything that a program needs to take part in conversations.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pli_client::{Client, Event};
//!
//! let (client, mut events) = Client::builder("127.0.0.1:7480", "alice").connect().await?;
//! let bob = client.conversation_with("bob".parse()?).await?;
//! client.send(bob, "hello").await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => println!("{:?}: {}", message.from.handle, message.text),
//!         Event::Stored { message, .. } => println!("{message} is safe"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - **Connect**: [`Client::builder`] opens a profile, registers its handle at first use, connects and reconnects by itself.
//!   [`Client::online`] waits, [`Client::status`] tells, [`Client::close`] ends.
//! - **Events**: [`Events::next`] tells what happened, in order and once; [`Client::messages`] gives what others said until
//!   it was handled, across restarts, which is what a bot wants.
//! - **Send**: [`Client::send`], [`Message::reply`].
//! - **Conversations**: [`Client::conversation_with`], [`Client::create_group`], [`Client::conversations`],
//!   [`Client::history`], [`Client::add_members`], [`Client::remove_members`], [`Client::leave`], [`Client::mark_read`].
//! - **Devices**: [`Client::devices`], [`Client::rename_device`], [`Client::remove_device`]; [`linking`] brings a new one.
//!
//! One profile is one handle on one server: a folder with a database of sealed values, the key that opens them, the
//! pinned certificate and a lock, so one process uses it at a time. What is decided is written in one transaction before a
//! frame leaves, so a process can die at any moment and the next one goes on where it was. What was deleted or replaced
//! there, keys that are used up above all, is gone from the files a second later at the latest.
//!
//! **Bounds**: 10,000 messages or 64 MiB in the outbox, 32,768 bytes of text in a message, 250 people in a group,
//! 10 devices of an account. 5,120 events wait for their reader, then nothing is read from the server. Ids are 16 random
//! bytes; times are milliseconds since 1970.
//!
//! **Below this surface** lie [`core`], the client without I/O, with every [`core::Command`] for [`Client::command`] and
//! every view for [`Client::query`], and the transport by itself, for tools that measure. `pli chat` and the
//! other commands stand on the same crate.

mod address;
mod client;
mod driver;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod handover;
mod history;
pub mod linking;
pub mod profile;
mod seal;
mod store;
mod transport;
mod trust;

pub use address::{InvalidServerAddress, ServerAddress};
pub use client::{Client, ClientBuilder, ClientOptions, ConnectError, Events, Message, Messages, Status};
pub use error::{End, OpenError, RequestError};
pub use history::HistoryItem;
pub use pli_client_core as core;
pub use pli_client_core::mls::{InvalidSuite, Suite};
pub use pli_client_core::{
    CommandError, ConnectionState, ConversationView, Event, IncomingMessage, Member, MessageRow, OwnDevice,
};
pub use pli_domain::{AccountId, ConversationId, DeviceId, Handle, SendId};
pub use profile::{DeviceLabel, InvalidProfileName, ProfileError, ProfileName};
pub use seal::SealError;
pub use store::{SCAN_ROWS_MAX, StorageError};
pub use transport::{Carrier, InvalidTransport, Transport, TransportError};
#[doc(hidden)]
pub use transport::{Connection, Connector, FrameSink, FrameStream};
pub use trust::{Fingerprint, InvalidFingerprint};

use store::Store;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client does in conversations and with the devices of its account.
//!
//! Each call is answered when what it changed is durable here; the server is not waited for. What becomes of it is told by
//! events.

use pli_client_core::{Command, ConversationView, OwnDevice};
use pli_domain::{AccountId, ConversationId, DeviceId, Handle, SendId};

use crate::history::HistoryItem;
use crate::{Client, RequestError, StorageError};

impl Client {
    /// The conversation with one person; begun if there is none. Messages may be sent into it at once.
    ///
    /// # Errors
    /// [`RequestError::Command`] where the handle is one's own.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let bob = client.conversation_with("bob".parse()?).await?;
    /// client.send(bob, "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn conversation_with(&self, handle: Handle) -> Result<ConversationId, RequestError> {
        self.begun(Command::StartConversation { handle }).await
    }

    /// Makes a group of these people and oneself: 1 to 249 others, a name of 1 to 128 visible bytes that no other group here
    /// has. Messages may be sent into it at once.
    ///
    /// # Errors
    /// [`RequestError::Command`] where a name or a number is out of these bounds.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let team = client.create_group("team", vec!["bob".parse()?, "carol".parse()?]).await?;
    /// client.send(team, "hello all").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_group(
        &self,
        name: impl Into<String>,
        handles: Vec<Handle>,
    ) -> Result<ConversationId, RequestError> {
        self.begun(Command::CreateGroup { name: name.into(), handles }).await
    }

    /// Says something: 1 to 32,768 bytes of text. It is in the outbox on return and stays there, across restarts, until the
    /// server has stored it: at most 10,000 messages or 64 MiB wait. `Event::Accepted` says that it will arrive,
    /// `Event::Refused` that it will not.
    ///
    /// # Errors
    /// [`RequestError::Command`] where the text is empty or too long, the outbox is full, or the conversation was left.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client, bob: pli_client::ConversationId)
    /// # -> Result<(), pli_client::RequestError> {
    /// let name = client.send(bob, "hello").await?;
    /// println!("{name} is on its way");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, conversation: ConversationId, text: impl Into<String>) -> Result<SendId, RequestError> {
        let outcome = self.command(Command::SendText { conversation, text: text.into() }).await?;
        outcome.message.map(|message| message.send_id).ok_or(RequestError::Ended)
    }

    /// Tells the others that everything shown in the conversation so far was read; where it is over nobody is told.
    ///
    /// # Errors
    /// [`RequestError::Command`] where there is no such conversation.
    pub async fn mark_read(&self, conversation: ConversationId) -> Result<(), RequestError> {
        self.command(Command::MarkRead { conversation }).await.map(drop)
    }

    /// Adds people to a group. `Event::MemberAdded` says that it is done, `Event::ChangeFailed` that it cannot be.
    ///
    /// # Errors
    /// [`RequestError::Command`] where it is no group, or 16 changes wait in it already.
    pub async fn add_members(&self, conversation: ConversationId, handles: Vec<Handle>) -> Result<(), RequestError> {
        self.command(Command::AddMembers { conversation, handles }).await.map(drop)
    }

    /// Removes people from a group, with every device of theirs. `Event::MemberRemoved` says that it is done.
    ///
    /// # Errors
    /// [`RequestError::Command`] where it is no group, or one of them is not in it.
    pub async fn remove_members(
        &self,
        conversation: ConversationId,
        accounts: Vec<AccountId>,
    ) -> Result<(), RequestError> {
        self.command(Command::RemoveMembers { conversation, accounts }).await.map(drop)
    }

    /// Leaves a conversation. Another member completes it, who has to be online for that: `Event::Left`.
    ///
    /// # Errors
    /// [`RequestError::Command`] where there is no such conversation, or it was left.
    pub async fn leave(&self, conversation: ConversationId) -> Result<(), RequestError> {
        self.command(Command::Leave { conversation }).await.map(drop)
    }

    /// Every conversation, those that were left too.
    ///
    /// # Errors
    /// [`RequestError::Ended`] alone.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client) -> Result<(), pli_client::RequestError> {
    /// for conversation in client.conversations().await?.iter().filter(|c| c.ready) {
    ///     println!("{} has {} members", conversation.label, conversation.members.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn conversations(&self) -> Result<Vec<ConversationView>, RequestError> {
        self.query(|core| core.conversations()).await
    }

    /// One conversation, or the chat that it is part of; none where there is no such conversation.
    ///
    /// # Errors
    /// [`RequestError::Ended`] alone.
    pub async fn conversation(&self, conversation: ConversationId) -> Result<Option<ConversationView>, RequestError> {
        self.query(move |core| core.conversation(conversation)).await
    }

    /// The last `rows_max` rows of a chat's history, oldest first: of every conversation that is part of it.
    ///
    /// # Errors
    /// [`StorageError`] where the profile cannot be read, or the client has ended.
    pub async fn history(
        &self,
        conversation: ConversationId,
        rows_max: usize,
    ) -> Result<Vec<HistoryItem>, StorageError> {
        let parts = self.query(move |core| core.chat(conversation)).await.map_err(|_| StorageError::Stopped)?;
        self.rows.history(parts, rows_max).await
    }

    /// The devices of this account as its signed list names them: 1 to 10, this one among them; none before the server was
    /// reached for the first time.
    ///
    /// # Errors
    /// [`RequestError::Ended`] alone.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client) -> Result<(), pli_client::RequestError> {
    /// for device in client.devices().await? {
    ///     println!("{} {}{}", device.device, device.name, if device.is_this { ", this one" } else { "" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn devices(&self) -> Result<Vec<OwnDevice>, RequestError> {
        self.query(|core| core.devices()).await
    }

    /// Calls a device of this account otherwise: 1 to 64 visible bytes. `Event::DeviceRenamed` says that it is done.
    ///
    /// # Errors
    /// [`RequestError::Command`] where this is not the account's first device, or there is no such device.
    pub async fn rename_device(&self, device: DeviceId, name: impl Into<String>) -> Result<(), RequestError> {
        self.command(Command::RenameDevice { device, name: name.into() }).await.map(drop)
    }

    /// Removes another device of this account: its session ends, and it leaves every conversation. `Event::DeviceRemoved`
    /// says that the list is changed.
    ///
    /// # Errors
    /// [`RequestError::Command`] where this is not the account's first device, or there is no such device.
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), RequestError> {
        self.command(Command::RemoveDevice { device }).await.map(drop)
    }

    async fn begun(&self, command: Command) -> Result<ConversationId, RequestError> {
        self.command(command).await?.conversation.ok_or(RequestError::Ended)
    }
}

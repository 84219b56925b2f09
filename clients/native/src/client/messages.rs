// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that a program answers: each is given until it was handled, across restarts.

use std::collections::VecDeque;
use std::time::Duration;

use pli_client_core::{Command, Event, Outcome};
use pli_domain::{ConversationId, SendId};
use tokio::sync::oneshot;

use super::{Client, Events, Request};
use crate::{RequestError, StorageError};

/// How often is looked whether what waited has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What others say, for a program that answers: unlike [`Events`], which tell once, a message comes again after a restart
/// until it was handled.
///
/// What is promised: every message that this device shows is given, in order, and one that was handled is never given
/// again. [`Message::reply`] puts the answer into the outbox and marks the message in one transaction, so an answer is
/// made once, whenever the process is killed. What else a program does about a message happens once or, where it is killed
/// before it marks the message, again.
///
/// A profile that is new begins with the first message, an older one with the first that comes after this was called for
/// the first time; [`Client::messages_from_now`] leaves out what came before. What waits is held in memory.
#[derive(Debug)]
pub struct Messages {
    client: Client,
    events: Events,
    waiting: VecDeque<Message>,
    /// The place of the last one that is in `waiting` or was given.
    last: u64,
}

/// A message that waits to be handled.
#[derive(Debug, Clone)]
pub struct Message {
    client: Client,
    /// Where it was said.
    pub conversation: ConversationId,
    /// Whose it is: a handle, or an account id in hexadecimal digits where the handle was not known yet.
    pub from: String,
    /// What was said.
    pub text: String,
    /// Its place in the history of this device; rises with every message.
    pub order: u64,
}

impl Client {
    /// The messages that are not handled yet, and those that come. Takes the events, which it reads on.
    ///
    /// # Errors
    /// [`StorageError`] where the profile cannot be read, or the client has ended.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client, events: pli_client::Events)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let mut messages = client.messages(events).await?;
    /// while let Some(message) = messages.next().await {
    ///     message.reply(format!("you said: {}", message.text)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn messages(&self, events: Events) -> Result<Messages, StorageError> {
        let after = self.rows.handled().await?;
        let items = self.rows.said_after(after).await?;
        let waiting: VecDeque<Message> = items
            .into_iter()
            .map(|item| Message {
                client: self.clone(),
                conversation: item.conversation,
                from: if item.row.handle.is_empty() { hex::encode(&item.row.account) } else { item.row.handle },
                text: item.row.text,
                order: item.order,
            })
            .collect();
        let last = waiting.back().map_or(after, |message| message.order);
        Ok(Messages { client: self.clone(), events, waiting, last })
    }

    /// The messages that come from now on: waits until the client is online, and marks everything that has arrived by then
    /// as handled, for good. For a program that was away, or whose profile was used otherwise, and that is not to answer what
    /// was said meanwhile. Reads and drops the events until then. Called at every start, it makes no use of the promise that
    /// what was not handled comes again.
    ///
    /// # Errors
    /// [`RequestError::Ended`] where the client has ended; [`Client::end`] says why.
    ///
    /// ```
    /// # async fn example(client: pli_client::Client, events: pli_client::Events)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let mut messages = client.messages_from_now(events).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn messages_from_now(&self, mut events: Events) -> Result<Messages, RequestError> {
        let last = loop {
            // At one moment: what comes after it is new.
            if let Some(last) = self.query(|core| core.has_caught_up().then(|| core.last_order())).await? {
                break last;
            }
            tokio::select! {
                event = events.next() => drop(event.ok_or(RequestError::Ended)?),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        };
        self.handled(last, None).await?;
        Ok(Messages { client: self.clone(), events, waiting: VecDeque::new(), last })
    }

    async fn handled(&self, order: u64, command: Option<Command>) -> Result<Outcome, RequestError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Handled(order, command.map(Box::new), answer);
        self.requests.send(request).await.map_err(|_| RequestError::Ended)?;
        answered.await.map_err(|_| RequestError::Ended)?
    }
}

impl Messages {
    /// The next message; none when the client has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(message);
            }
            let Event::Message(message) = self.events.next().await? else { continue };
            // What was in the history already when it was read.
            if message.order > self.last {
                self.last = message.order;
                let account = || hex::encode(message.from.account.as_bytes());
                self.waiting.push_back(Message {
                    client: self.client.clone(),
                    conversation: message.conversation,
                    from: message.from.handle.as_ref().map_or_else(account, ToString::to_string),
                    text: message.text,
                    order: message.order,
                });
            }
        }
    }
}

impl Message {
    /// Answers where it was said, and marks it and everything before it as handled, in one transaction. The bounds of the
    /// text are those of [`Client::send`].
    ///
    /// # Errors
    /// [`RequestError::Command`] where the text is empty or too long, the outbox is full, or the conversation was left;
    /// then the message is not handled: reply with something else, or mark it by [`Message::done`].
    pub async fn reply(&self, text: impl Into<String>) -> Result<SendId, RequestError> {
        let command = Command::SendText { conversation: self.conversation, text: text.into() };
        let outcome = self.client.handled(self.order, Some(command)).await?;
        outcome.message.map(|message| message.send_id).ok_or(RequestError::Ended)
    }

    /// Marks it and everything before it as handled, without an answer. Durable on return.
    ///
    /// # Errors
    /// [`RequestError::Ended`] alone.
    pub async fn done(&self) -> Result<(), RequestError> {
        self.client.handled(self.order, None).await.map(drop)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! One person's device: a client whose events go into the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pli_client::core::{Command, ConnectionState, ConversationView, Event};
use pli_client::{Client, ClientOptions, Events};
use pli_domain::{ConversationId, DeviceAddress, Handle, SendId};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ledger::Ledger;

/// How often a device without an event for it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the ledger calls the conversation of Alice and Bob.
pub const TWO: &str = "two";

/// Whose device it is.
pub fn person(device: &str) -> &str {
    device.split_once('/').map_or(device, |(person, _)| person)
}

/// What a device has heard so far.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Rises with every event.
    pub events: u64,
    /// The session is open and nothing waits.
    pub online: bool,
    /// Accepted and not stored: what only the log has.
    pub unsettled: usize,
    /// Not stored.
    pub open: usize,
    /// Messages that were accepted and had to be sent again, since it was opened.
    pub resent: usize,
    /// Why something will never happen.
    pub refused: Option<String>,
}

#[derive(Default)]
struct Own {
    /// The ledger's name of each message of one's own that is not stored, and whether it is accepted.
    open: BTreeMap<SendId, (String, bool)>,
}

/// A device that runs.
pub struct Device {
    /// Its person, with a companion device's name after a slash: its name in the ledger.
    pub name: String,
    /// Its client.
    pub client: Client,
    heard: watch::Receiver<Heard>,
    own: Arc<Mutex<Own>>,
    ledger: Ledger,
    reader: JoinHandle<()>,
    /// Nothing that is waited for takes longer.
    patience: Duration,
}

struct Reader {
    name: String,
    client: Client,
    ledger: Ledger,
    /// Its messages count.
    counted: bool,
    own: Arc<Mutex<Own>>,
    heard: watch::Sender<Heard>,
}

impl Device {
    /// Opens the profile; what it shows goes into the ledger if it is `counted`. Whatever it waits for fails after
    /// `patience`.
    pub async fn open(
        options: ClientOptions,
        ledger: &Ledger,
        counted: bool,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let name = options.name.to_string();
        let (client, events) = Client::open(options).await?;
        let (heard, listening) = watch::channel(Heard::default());
        let own = Arc::new(Mutex::new(Own::default()));
        let reader = Reader {
            name: name.clone(),
            client: client.clone(),
            ledger: ledger.clone(),
            counted,
            own: own.clone(),
            heard,
        };
        let reader = tokio::spawn(reader.run(events));
        Ok(Self { name, client, heard: listening, own, ledger: ledger.clone(), reader, patience })
    }

    /// Goes offline; everything that is on its way stays in the profile.
    pub async fn close(self) -> anyhow::Result<()> {
        self.client.close().await;
        self.reader.await.context("the device's reader failed")
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Waits until `wanted` holds of what it has heard.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Heard) -> bool) -> anyhow::Result<()> {
        let mut heard = self.heard.clone();
        // What is awaited is a lock on what is heard: held on, it would keep the reader out and what is looked at next.
        let waited = timeout(self.patience, async { heard.wait_for(|heard| wanted(heard)).await.map(drop) }).await;
        let last = self.heard();
        waited
            .with_context(|| format!("{}: {what} did not happen in time: {last:?}", self.name))?
            .with_context(|| format!("{} ended: {:?}", self.name, self.client.ended()))?;
        Ok(())
    }

    /// Waits until the server knows it, everything that waited is there, and so are its key packages: whoever adds it to
    /// a group needs one.
    pub async fn online(&self) -> anyhow::Result<()> {
        self.wait("being connected", |heard| heard.online).await?;
        let idle = async {
            while !self.client.query(|core| core.is_idle()).await? {
                sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        let idle = timeout(self.patience, idle).await;
        idle.with_context(|| format!("{}: the server left calls unanswered", self.name))?
    }

    /// Waits until everything that it said is accepted.
    pub async fn all_accepted(&self) -> anyhow::Result<()> {
        self.own_until("all of them accepted", |own| own.open.values().all(|(_, accepted)| *accepted)).await
    }

    /// Waits until everything that it said is stored.
    pub async fn all_stored(&self) -> anyhow::Result<()> {
        self.own_until("the last `stored`", |own| own.open.is_empty()).await
    }

    /// What it has just said counts, of which it has heard nothing yet.
    async fn own_until(&self, what: &str, wanted: impl Fn(&Own) -> bool) -> anyhow::Result<()> {
        let mut heard = self.heard.clone();
        let waited = async {
            loop {
                heard.borrow_and_update();
                if wanted(&*self.own.lock().await) {
                    return anyhow::Ok(());
                }
                heard.changed().await.with_context(|| format!("{} ended: {:?}", self.name, self.client.ended()))?;
            }
        };
        let waited = timeout(self.patience, waited).await;
        waited.with_context(|| format!("{}: {what} did not happen in time: {:?}", self.name, self.heard()))?
    }

    /// Waits until a conversation satisfies `wanted`.
    pub async fn conversation(
        &self,
        what: &str,
        wanted: impl Fn(&ConversationView) -> bool,
    ) -> anyhow::Result<ConversationId> {
        let mut heard = self.heard.clone();
        let found = async {
            loop {
                heard.borrow_and_update();
                let all = self.client.conversations().await?;
                if let Some(found) = all.iter().find(|view| view.ready && wanted(view)) {
                    return anyhow::Ok(found.id);
                }
                heard.changed().await.with_context(|| format!("{} ended", self.name))?;
            }
        };
        let found = timeout(self.patience, found).await;
        found.with_context(|| format!("{}: {what} did not happen in time: {:?}", self.name, self.heard()))?
    }

    /// Writes the intention, then sends.
    pub async fn say(
        &self,
        (conversation, place): (ConversationId, &str),
        recipients: &[&str],
        words: &str,
    ) -> anyhow::Result<()> {
        let intended = self.ledger.intend(&self.name, place, recipients, words)?;
        // Held while the message gets its name: `accepted` may come before this returns.
        let mut own = self.own.lock().await;
        let send_id = self.client.send(conversation, intended.text).await?;
        own.open.insert(send_id, (intended.id, false));
        Ok(())
    }

    /// Gives a command.
    pub async fn command(&self, command: Command) -> anyhow::Result<Option<ConversationId>> {
        Ok(self.client.command(command).await.with_context(|| self.name.clone())?.conversation)
    }

    /// Its person's handle.
    pub fn handle(&self) -> anyhow::Result<Handle> {
        Ok(person(&self.name).parse()?)
    }

    /// Where its queue is.
    pub async fn address(&self) -> anyhow::Result<DeviceAddress> {
        Ok(self.client.query(|core| core.address()).await?)
    }

    /// Waits until what it sends to a conversation goes, or goes no longer, to another device.
    pub async fn sends_to(
        &self,
        (device, wanted): (DeviceAddress, bool),
        conversation: ConversationId,
    ) -> anyhow::Result<()> {
        let sends = async {
            while self.client.query(move |core| core.has_device(conversation, device)).await? != wanted {
                sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        let sends = timeout(self.patience, sends).await;
        sends
            .with_context(|| format!("{}: a device was not added or removed in time: {:?}", self.name, self.heard()))?
    }
}

impl Reader {
    async fn run(self, mut events: Events) {
        while let Some(event) = events.next().await {
            self.own_message(&event).await;
            self.shown(&event).await;
            let own = self.own.lock().await;
            let (open, unsettled) = (own.open.len(), own.open.values().filter(|(_, accepted)| *accepted).count());
            drop(own);
            self.heard.send_modify(|heard| {
                heard.events += 1;
                (heard.open, heard.unsettled) = (open, unsettled);
                heard.resent += usize::from(matches!(event, Event::Resending { .. }));
                match &event {
                    Event::Connection(state) => heard.online = *state == ConnectionState::Online,
                    Event::RegistrationRefused { why }
                    | Event::ConversationFailed { why, .. }
                    | Event::ChangeFailed { why, .. }
                    | Event::Refused { why, .. } => heard.refused = Some(format!("{event:?}: {}", why.message)),
                    _ => {}
                }
            });
        }
    }

    async fn own_message(&self, event: &Event) {
        let mut own = self.own.lock().await;
        match event {
            Event::Accepted { message, .. } => {
                if let Some((id, accepted)) = own.open.get_mut(message) {
                    *accepted = true;
                    self.ledger.accepted(&self.name, id);
                }
            }
            Event::Resending { message, .. } => {
                if let Some((_, accepted)) = own.open.get_mut(message) {
                    *accepted = false;
                }
            }
            Event::Stored { message, .. } => {
                if let Some((id, _)) = own.open.remove(message) {
                    self.ledger.stored(&self.name, &id);
                }
            }
            _ => {}
        }
    }

    async fn shown(&self, event: &Event) {
        if !self.counted {
            return;
        }
        match event {
            Event::Message(message) | Event::OwnMessage(message) => {
                let from = message.from.handle.as_ref().map_or("?".into(), ToString::to_string);
                self.ledger.shown(&self.name, &from, &message.text, message.late);
                if !message.text.starts_with('#') {
                    println!("  {:>12} sees  @{from}: {}", self.name, message.text);
                }
            }
            Event::Hole { conversation, from, .. } => {
                let (here, from) = (*conversation, from.handle.as_ref().map_or("?".into(), ToString::to_string));
                let view = self.client.conversation(here).await.ok().flatten();
                // Only one conversation has no name.
                let place = view.and_then(|view| view.name).unwrap_or_else(|| TWO.into());
                self.ledger.hole(&self.name, &from, &place);
            }
            Event::Gap => self.ledger.gap(&self.name),
            _ => {}
        }
    }
}

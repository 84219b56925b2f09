// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli chat`: a conversation in the terminal.

mod act;
mod complete;
mod devices;
mod editor;
mod input;
mod keyboard;
mod keys;
mod line;
mod paper;
mod piped;
mod prompt;
mod screen;
mod start;
mod ticks;
mod told;
mod wrap;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use pli_client::ProfileName;
use pli_client::core::{ConnectionState, Event, IncomingMessage};
use pli_domain::{AccountId, ConversationId, Handle};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::about::{About, Merged};
use super::advice::passes_soon;
use super::link::{How, LinkArgs};
use super::output::no_longer_in;
use super::printed::Printed;
use super::session::{self, Deadline, FirstUse, Session};
use super::target::profile;
use super::{interrupted, interrupted_or_hung_up};
use crate::cli::ClientArgs;
use crate::exit::Failure;
use devices::Letting;
use editor::Editor;
use input::Input;
use paper::Paper;
use prompt::Prompt;
use screen::Screen;
use ticks::{OwnNumbers, Ticks};

/// Chat in the terminal.
///
/// The first use of a handle registers it and makes its keys. `pli chat alice/laptop` is another device of the account: its
/// first use prints a code for `pli device approve alice CODE` on the account's first device, and asks before it joins;
/// messages from before it came stay on the other devices.
///
/// `@bob hello` starts a conversation or goes on with one;
/// a line without `@` goes to whom the prompt shows. After a start that is nobody until you name somebody, whoever writes
/// meanwhile; only in a profile that has no conversation yet the first who writes to you is shown there. Ticks: ✓ accepted (it will arrive), ✓✓ delivered, ✓✓ read. What you
/// type while the server is down is kept and sent when it is back; the prompt shows ● connected, ○ not. `/help` lists
/// the commands, Tab completes handles and commands. Ctrl-C throws away what is typed and ends where nothing is; Ctrl-D
/// ends. Of what is pasted, lines are sent and commands wait for an Enter of yours. NO_COLOR turns colours off.
///
/// Where standard input or output is no terminal, the chat waits at its end, at most 10 s, until what was read is accepted
/// and done, and the exit code says what was not: 12 for output that could not be written, 13 for lines that were refused,
/// 7 or 10 for messages and changes of groups that still wait. With --offline what waits is no error: it is kept, and said.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli chat alice\n  pli chat alice --server 127.0.0.1:7480\n  pli chat alice/laptop --qr\n  pli chat alice --home /tmp/alice"
)]
pub struct ChatArgs {
    /// Whose profile: HANDLE, or HANDLE/NAME of a companion device.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    #[command(flatten)]
    link: LinkArgs,
    /// Connect to nobody: show what is stored, also where the account has removed this device.
    ///
    /// What you type waits, and is sent by the next command without this flag.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// How long a lost connection is not told of: where the client ends with it, or with what the server says when it is asked
/// again after a second, its reason is all that there is to say.
const LOST_TOLD_AFTER: Duration = Duration::from_secs(3);

/// Said instead of carrying out a command that nobody pressed Enter for.
const PASTED: &str = "not done, because it was pasted: the up arrow brings it back, and Enter does it";

/// Said instead of sending a line that is no text.
const BROKEN: &str = "not sent: the line is not UTF-8 text; set the terminal or the input to UTF-8 and write it again";

/// Runs `pli chat`.
pub async fn run(args: ChatArgs) -> Result<(), Failure> {
    let how = How::of(args.link, &args.client, &args.handle);
    let mut session = match args.offline {
        true => session::open_offline(&args.client, &args.handle).await?,
        false => session::open_as(&args.client, &args.handle, FirstUse::Links(how)).await?,
    };
    session.keep_quiet();
    // Linking may have begun to listen for the terminal's end.
    let ending = if std::io::stdin().is_terminal() { interrupted_or_hung_up()? } else { interrupted()? };
    let mut chat = Chat::new(session, &args.handle, args.offline).await?;
    let talked = chat.talk(&ending).await;
    chat.end_letting().await;
    let settled = chat.settle(&ending, talked.is_ok()).await;
    chat.say_waiting().await;
    let ended = talked.and_then(|()| chat.outcome(settled));
    let Chat { session, editor, .. } = chat;
    editor.end();
    session.close().await;
    ended
}

/// An open chat.
struct Chat {
    session: Session,
    editor: Editor,
    paper: Paper,
    screen: Screen,
    /// Whose profile. A name would not do: a companion device's is no handle, and a handle may be somebody else's later.
    me: AccountId,
    /// Nobody is connected to.
    offline: bool,
    /// When it is told that the connection is lost, where that is so and was not told.
    lost_at: Option<Instant>,
    /// It was told, but not why.
    lost_told: bool,
    ticks: Ticks,
    /// Which numbers in the history are messages of one's own.
    own: OwnNumbers,
    /// A message on this screen is printed, as far as `recv` is concerned.
    printed: Printed,
    /// What the start tells of in one line.
    merged: Merged,
    /// Where a line without a name goes: what the prompt on the screen shows.
    current: Option<ConversationId>,
    /// The target before that one.
    before: Option<ConversationId>,
    /// Why the last target is none any more.
    gone: Option<String>,
    /// Nobody was ever talked to: the first who writes becomes the target, with a prompt that says so.
    unused: bool,
    /// Something that was read was not done: refused here, or by the server.
    undone: Cell<bool>,
    /// What was said last of who is in a group.
    announced: BTreeMap<ConversationId, String>,
    /// A new device that is being let in, and whether its person is asked.
    letting: Letting,
    asks: bool,
    /// Whom the user named to begin a conversation; its members are known when it is ready.
    asked: BTreeMap<ConversationId, Handle>,
}

impl Chat {
    async fn new(session: Session, handle: &ProfileName, offline: bool) -> Result<Self, Failure> {
        let me = session.client.query(|core| core.address().account).await.map_err(|error| session.request(error))?;
        let editor = Editor::start(Prompt::new(handle.to_string()))?;
        let (paper, screen) = (editor.paper(), Screen::new(editor.paper()));
        let printed = Printed::open(session.client.folder())?;
        let (ticks, own) = (Ticks::default(), OwnNumbers::default());
        let (asked, announced) = (BTreeMap::new(), BTreeMap::new());
        let (current, before, gone) = (None, None, None);
        let (unused, undone) = (true, Cell::new(false));
        let mut chat = Self {
            session,
            editor,
            paper,
            screen,
            me,
            ticks,
            own,
            printed,
            merged: Merged::default(),
            offline,
            lost_told: false,
            lost_at: (!offline).then(|| Instant::now() + LOST_TOLD_AFTER),
            current,
            before,
            gone,
            unused,
            undone,
            announced,
            letting: Letting::default(),
            asks: false,
            asked,
        };
        chat.look_at_output();
        chat.learn_names().await?;
        chat.show_start().await?;
        chat.editor.taken();
        Ok(chat)
    }

    /// Until the end of the input, `/quit` or a signal.
    async fn talk(&mut self, ending: &CancellationToken) -> Result<(), Failure> {
        self.screen.note(match self.offline {
            true if self.session.is_removed() => {
                "offline: what is stored is shown; the account has removed this device, which sends nothing any more"
            }
            true => "offline: what is stored is shown, what you type waits; /help lists the commands",
            false => "connecting …  /help lists the commands",
        });
        loop {
            tokio::select! {
                () = ending.cancelled() => return Ok(()),
                event = self.session.next(Deadline::after(None)) => self.see(event?).await?,
                () = sleep_until(self.lost_at.unwrap_or_else(Instant::now)), if self.lost_at.is_some() => self.say_lost(),
                step = self.letting.next() => self.show_step(step),
                line = self.editor.line() => {
                    let Some(line) = line else { return Ok(()) };
                    match Input::parse(&line.text) {
                        _ if line.broken => self.refuse(BROKEN),
                        Ok(input) if line.pasted && input.is_command() => self.refuse(PASTED),
                        Ok(Input::Quit) => return Ok(()),
                        // As the other device is answered; nobody means it for the person whom the prompt shows.
                        Ok(Input::Say(word)) if self.asks && !line.pasted && answered(&word).is_some() => {
                            self.answer(answered(&word) == Some(true))?;
                        }
                        Ok(input) => self.act(input).await?,
                        Err(hint) => self.refuse(&hint),
                    }
                    self.show_target().await?;
                    self.editor.taken();
                }
            }
        }
    }

    async fn see(&mut self, event: Event) -> Result<(), Failure> {
        if event == Event::Connection(ConnectionState::Online) {
            // It was over before anybody had to know.
            (self.lost_at, self.lost_told) = (None, false);
        }
        self.note_refusal(&event);
        if self.printed.knows(&event) {
            return Ok(());
        }
        self.show(&event).await?;
        // What is on no screen is printed by the next command that can.
        if let (Some(order), false) = (event.order(), self.paper.has_failed()) {
            self.printed.note(order);
        }
        Ok(())
    }

    async fn show(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Connection(state) => self.connection(*state),
            Event::Message(message) | Event::OwnMessage(message) => self.show_message(message).await?,
            Event::ConversationReady { conversation, added_by, .. } => {
                self.learn_names().await?;
                self.announce(*conversation, added_by.as_ref()).await?;
                self.show_target().await?;
            }
            Event::NewKey { .. } => {
                self.learn_names().await?;
                self.screen.event(event, &self.about(event).await);
                self.show_target().await?;
            }
            Event::Left { conversation, by } => {
                let place = self.place_left(*conversation).await?;
                let why = no_longer_in(&place, by.as_ref());
                // Whoever is added again hears so.
                self.announced.remove(conversation);
                self.screen.note(&why);
                self.turn_away(*conversation, why).await?;
            }
            Event::ConversationFailed { conversation, .. } => {
                if !self.ticks.has_told(*conversation) {
                    self.screen.event(event, &About::default());
                }
                self.asked.remove(conversation);
                self.turn_back(*conversation).await?;
                self.turn_away(*conversation, "the conversation could not be started".into()).await?;
            }
            Event::MemberAdded { conversation, .. }
            | Event::MemberRemoved { conversation, .. }
            | Event::AddedByStranger { conversation, .. } => {
                self.learn_names().await?;
                let place = self.place(*conversation).await?;
                self.screen.members(event, &place);
                self.show_target().await?;
            }
            Event::DeviceAwaited { .. } if self.merged.has_told_awaited(event) => {}
            // Nobody has to know what is over before it is read.
            Event::Waiting { why, .. } if passes_soon(why.code()) => {}
            _ => self.tick(event).await?,
        }
        Ok(())
    }

    async fn tick(&mut self, event: &Event) -> Result<(), Failure> {
        if let Event::Moved { into, .. } = event {
            self.own.forget(*into);
        }
        let is_news = self.is_of_messages(event).await?;
        let about = self.about(event).await;
        let with_all = self.with_all(event).await?;
        let line = self.ticks.see(event, &self.whereabouts(event).await?, &about);
        if let Some(lines) = with_all {
            lines.iter().for_each(|line| self.screen.tick(line));
            return Ok(());
        }
        match line {
            Some(line) if is_news => self.screen.tick(&line),
            Some(_) => {}
            None => self.screen.event(event, &about),
        }
        Ok(())
    }

    async fn about(&self, event: &Event) -> About {
        self.merged.about(&self.session.client, event).await
    }

    async fn show_message(&mut self, message: &IncomingMessage) -> Result<(), Failure> {
        let conversation = message.conversation;
        let place = match message.from.account == self.me {
            true => self.place_to(conversation).await?,
            false => self.place(conversation).await?,
        };
        self.screen.message(message, &place);
        if self.paper.has_failed() {
            return Ok(());
        }
        // Only before anything is typed, with a prompt that says so, and where there is nobody whom it could be meant for
        // instead: no line goes where nobody sent it.
        if self.unused && self.editor.may_turn() {
            (self.current, self.gone, self.unused) = (Some(conversation), None, false);
        }
        self.show_target().await?;
        // The line is on the screen, so it counts as read; a full change queue only delays the tick.
        let _ = self.session.client.mark_read(conversation).await;
        Ok(())
    }

    fn connection(&mut self, state: ConnectionState) {
        let was = self.paper.change(|_, prompt| prompt.set_state(state));
        match state {
            ConnectionState::Online if was != state => {
                let carrier = self.session.client.status().borrow().carrier;
                let over = carrier.map_or(String::new(), |carrier| format!(" over {carrier}"));
                self.screen.note(&format!("● connected{over}"));
            }
            // Between registering and the first session there is nothing to worry about.
            ConnectionState::Offline if !matches!(was, ConnectionState::Offline | ConnectionState::Registering) => {
                self.lost_at.get_or_insert(Instant::now() + LOST_TOLD_AFTER);
            }
            ConnectionState::Registering if was != state => self.screen.note("◌ registering"),
            _ => {}
        }
    }

    /// Tells that the connection is lost, where that was not told yet, and why as soon as that is known; a client that has
    /// ended says why by itself.
    fn say_lost(&mut self) {
        let pli_client::Status { why, ended, .. } = self.session.client.status().borrow().clone();
        let is_told = std::mem::replace(&mut self.lost_told, why.is_none());
        if self.lost_at.take().is_none() || ended {
            return;
        }
        if why.is_none() {
            self.lost_at = Some(Instant::now() + LOST_TOLD_AFTER);
        }
        if why.is_some() || !is_told {
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            self.screen.note(&format!("○ not connected{why}; what you type is sent when the server is back"));
        }
    }
}

/// What a line says to a question whether a device may come in.
fn answered(line: &str) -> Option<bool> {
    match line.to_lowercase().as_str() {
        "y" | "yes" => Some(true),
        "n" | "no" => Some(false),
        _ => None,
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doing what a typed line asks for.

use pli_client::RequestError;
use pli_client::core::content::Kind;
use pli_client::core::{Command, CommandError, ConnectionState, ConversationView, Core, Member, Outcome};
use pli_domain::{ConversationId, Handle};

use super::Chat;
use super::input::{COMMANDS, Input};
use crate::commands::json::name;
use crate::commands::names::{called, group_named, leaves_first, other_of, typed};
use crate::exit::Failure;

impl Chat {
    /// Does it; what cannot be done is said on the screen.
    pub(super) async fn act(&mut self, input: Input) -> Result<(), Failure> {
        match input {
            Input::Nothing | Input::Quit => Ok(()),
            Input::Help => {
                self.help();
                Ok(())
            }
            Input::Person(handle, text) => {
                let outcome = self.command(Command::StartConversation { handle: handle.clone() }).await?;
                if let Some(conversation) = outcome.as_ref().and_then(|outcome| outcome.conversation) {
                    self.asked.insert(conversation, handle);
                }
                self.turn_to(outcome, text).await
            }
            Input::Former(former, text) => match self.chat_with(&former).await? {
                Some(conversation) => self.turn_to_conversation(conversation, text).await,
                None => self.hint(&format!("there is no chat with @{former} that goes on; /list shows all")),
            },
            Input::Group(name, text) => match group_named(&self.session.conversations().await?, &name) {
                Ok(conversation) => self.turn_to_conversation(conversation, text).await,
                Err(failure) => self.tell(&failure),
            },
            Input::Say(text) => match self.current {
                Some(conversation) => self.say(conversation, text).await,
                None => {
                    let why = self.gone.as_ref().map_or(String::new(), |gone| format!("not sent: {gone}; "));
                    self.hint(&format!(
                        "{why}to whom? begin with @HANDLE or #GROUP (the up arrow brings the line back)"
                    ))
                }
            },
            Input::Create(name, handles) => self.make_group(name, handles).await,
            Input::Safety(Some(person)) => self.safety(person).await,
            Input::List => self.list().await,
            Input::Devices => self.devices().await,
            Input::Approve(code) => self.approve(code).await,
            Input::Answer(yes) => self.answer(yes),
            Input::Unlink(device) => self.unlink(&device).await,
            here => match self.current {
                Some(conversation) => self.act_here(here, conversation).await,
                None => self.hint("in which conversation? turn to one with @HANDLE or #GROUP"),
            },
        }
    }

    async fn make_group(&mut self, name: String, handles: Vec<Handle>) -> Result<(), Failure> {
        let made = format!("the group #{} is made when the server is there", typed(&name));
        let outcome = self.command(Command::CreateGroup { name, handles }).await?;
        if outcome.is_some() && self.session.client.status().borrow().state != ConnectionState::Online {
            self.screen.note(&made);
        }
        self.turn_to(outcome, None).await
    }

    async fn act_here(&mut self, input: Input, conversation: ConversationId) -> Result<(), Failure> {
        match input {
            Input::Add(handles) => self.add(conversation, handles).await,
            Input::Remove(people) => self.remove(conversation, &people).await,
            Input::Leave => self.leave(conversation).await,
            Input::Who => self.who(conversation).await,
            Input::History(rows) => self.show_rows(conversation, rows).await,
            Input::Safety(_) => self.safety_here(conversation).await,
            _ => Ok(()),
        }
    }

    async fn add(&mut self, conversation: ConversationId, handles: Vec<Handle>) -> Result<(), Failure> {
        let before = self.view(conversation).await?;
        if self.command(Command::AddMembers { conversation, handles: handles.clone() }).await?.is_none() {
            return Ok(());
        }
        let Some(view) = before else { return Ok(()) };
        let has = |all: &[Member], handle: &Handle| all.iter().any(|member| member.handle.as_ref() == Some(handle));
        for handle in handles.iter().filter(|handle| has(&view.members, handle)) {
            self.screen.note(&leaves_first(&view, handle).unwrap_or_else(|| {
                let group = self.called(&view);
                format!("@{handle} is in {group} already")
            }));
        }
        Ok(())
    }

    async fn leave(&mut self, conversation: ConversationId) -> Result<(), Failure> {
        let view = self.view(conversation).await?;
        if view.as_ref().is_some_and(|view| view.kind == Kind::Direct) {
            return self.hint("this is a chat of two; only a group can be left");
        }
        if self.command(Command::Leave { conversation }).await?.is_some() {
            (self.current, self.gone) = (None, Some("you have asked to leave the group".into()));
            // Whoever is alone is out at once.
            if let Some(view) = view.filter(|view| view.members.len() > 1) {
                self.say_leaving(&view);
            }
        }
        Ok(())
    }

    /// Nobody takes themselves out of a group.
    pub(super) fn say_leaving(&self, view: &ConversationView) {
        let group = self.called(view);
        self.screen.note(&format!(
            "you have asked to leave {group}; the first other member who is online carries it out, and until then you are \
             still in it"
        ));
    }

    /// Whether this account has asked to leave, and is still in.
    pub(super) fn is_leaving(&self, view: &ConversationView) -> bool {
        view.leaving.iter().any(|member| member.account == self.me)
    }

    /// Says at the end what was not sent.
    pub(super) async fn say_waiting(&self) {
        // A client that has ended says so itself.
        let waiting = self.session.client.query(|core| (core.unsent_texts(), core.open_changes())).await;
        let (waiting, changes) = waiting.unwrap_or((0, 0));
        if self.session.is_removed() {
            if waiting + changes > 0 {
                self.screen.note("what waits here is not sent any more: the account has removed this device");
            }
            return;
        }
        let flag = if self.offline { " without --offline" } else { "" };
        if waiting == 0 && changes > 0 {
            self.screen.note(&format!(
                "what was asked for is not done yet; the next command of this profile{flag} goes on with it"
            ));
        }
        if waiting > 0 {
            let messages =
                if waiting == 1 { "1 message waits".to_string() } else { format!("{waiting} messages wait") };
            self.screen.note(&format!(
                "{messages} to be sent; the next command of this profile{flag} sends {}",
                if waiting == 1 { "it" } else { "them" }
            ));
        }
    }

    pub(super) fn hint(&self, text: &str) -> Result<(), Failure> {
        self.refuse(text);
        Ok(())
    }

    pub(super) fn tell(&self, failure: &Failure) -> Result<(), Failure> {
        self.hint(&failure.error.to_string())
    }

    fn help(&self) {
        // On a screen of 24 rows the first of these scroll away: what is needed most stands last.
        self.screen.line("  prompt: ● connected, ◌ connecting, ○ not");
        self.screen.line(
            "  ticks: ✓ accepted (it will arrive), ✓✓ delivered, ✓✓ read (with all before it), ✗ lost or refused",
        );
        for (name, arguments, what) in COMMANDS {
            self.screen.line(&format!("  {:<21} {what}", format!("{name} {arguments}")));
        }
        self.screen.line(
            "  #\"MY GROUP\" TEXT      to a group with blanks in its name; #~SHORTID TEXT, as /list says, to any",
        );
        self.screen.line(
            "  @HANDLE TEXT          write to somebody; #GROUP TEXT to a group; TEXT alone to whom the prompt shows",
        );
    }

    /// Gives the core a command; what it does not take is said on the screen.
    pub(super) async fn command(&mut self, command: Command) -> Result<Option<Outcome>, Failure> {
        let done = self.session.client.command(command).await;
        self.taken(done)
    }

    fn taken(&self, done: Result<Outcome, RequestError>) -> Result<Option<Outcome>, Failure> {
        match done {
            Ok(outcome) => Ok(Some(outcome)),
            Err(RequestError::Command(error)) => {
                self.refuse(&error.to_string());
                Ok(None)
            }
            Err(error) => Err(self.session.request(error)),
        }
    }

    async fn turn_to(&mut self, outcome: Option<Outcome>, text: Option<String>) -> Result<(), Failure> {
        match outcome.and_then(|outcome| outcome.conversation) {
            Some(conversation) => self.turn_to_conversation(conversation, text).await,
            None => Ok(()),
        }
    }

    async fn turn_to_conversation(&mut self, here: ConversationId, text: Option<String>) -> Result<(), Failure> {
        if self.current != Some(here) {
            self.before = self.current;
        }
        (self.current, self.gone, self.unused) = (Some(here), None, false);
        match text {
            Some(text) => self.say(here, text).await,
            None => Ok(()),
        }
    }

    /// What could not be started gives way to what was talked in before it, unless something is typed already: no line goes
    /// where nobody sent it.
    pub(super) async fn turn_back(&mut self, failed: ConversationId) -> Result<(), Failure> {
        let Some(before) = self.before.filter(|_| self.current == Some(failed) && self.editor.may_turn()) else {
            return Ok(());
        };
        if self.view(before).await?.is_some_and(|view| !view.left) {
            self.current = Some(before);
        }
        Ok(())
    }

    /// What is over takes no more lines.
    pub(super) async fn turn_away(&mut self, over: ConversationId, why: String) -> Result<(), Failure> {
        if self.current == Some(over) {
            // A chat of which one part is over goes on in another one.
            self.current = self.view(over).await?.filter(|view| !view.left).map(|view| view.id);
            self.gone = self.current.is_none().then_some(why);
        }
        self.show_target().await
    }

    async fn say(&mut self, conversation: ConversationId, text: String) -> Result<(), Failure> {
        let command = Command::SendText { conversation, text: text.clone() };
        let outcome = match self.session.client.command(command).await {
            // It could not be started after all: the event that says why is on its way.
            Err(RequestError::Command(CommandError::NotAMember)) if self.asked.contains_key(&conversation) => {
                self.undone.set(true);
                None
            }
            done => self.taken(done)?,
        };
        // Another one of the same chat may carry it.
        if let Some((conversation, message)) = outcome.and_then(|sent| Some((sent.conversation?, sent.message?))) {
            self.own.forget(conversation);
            self.ticks.sent(conversation, message, &text);
        }
        Ok(())
    }

    async fn remove(&mut self, conversation: ConversationId, people: &[String]) -> Result<(), Failure> {
        let members = self.view(conversation).await?.map(|view| view.members).unwrap_or_default();
        let mut accounts = Vec::new();
        for person in people {
            match members.iter().find(|member| name(member) == *person) {
                Some(member) => accounts.push(member.account),
                None => return self.hint(&format!("@{person} is not here")),
            }
        }
        self.command(Command::RemoveMembers { conversation, accounts }).await.map(|_| ())
    }

    /// The chat of two with somebody who is called so here.
    async fn chat_with(&self, person: &str) -> Result<Option<ConversationId>, Failure> {
        let is_with = |view: &ConversationView| {
            view.kind == Kind::Direct && view.members.iter().any(|member| name(member) == person)
        };
        Ok(self.session.conversations().await?.into_iter().find(is_with).map(|view| view.id))
    }

    /// With the other one of a chat of two.
    async fn safety_here(&self, conversation: ConversationId) -> Result<(), Failure> {
        let view = self.view(conversation).await?.filter(|view| view.kind == Kind::Direct);
        match view.and_then(|view| self.called(&view).strip_prefix('@').map(str::to_owned)) {
            Some(person) => self.safety(person).await,
            None => self.hint("with whom? /safety HANDLE"),
        }
    }

    async fn safety(&self, person: String) -> Result<(), Failure> {
        let asked = person.clone();
        let look = move |core: &Core| {
            let account = core.person_named(&asked)?.account;
            Some((account, core.safety_number_with(account)?))
        };
        let number = self.session.client.query(look).await;
        match number.map_err(|error| self.session.request(error))? {
            // It would be the same on both sides, and say nothing of anybody.
            Some((account, _)) if account == self.me => {
                self.hint(&format!("@{person} is you; /safety HANDLE of somebody else"))
            }
            Some((_, number)) => {
                let digits: Vec<char> = number.chars().filter(char::is_ascii_digit).collect();
                let groups: Vec<String> = digits.chunks(5).map(|five| five.iter().collect()).collect();
                self.screen.line(&format!("  safety number with @{person}; both of you must see the same:"));
                groups.chunks(4).for_each(|four| self.screen.line(&format!("    {}", four.join(" "))));
                Ok(())
            }
            None => self.hint(&format!("there was no contact with @{person} yet: write to them first")),
        }
    }

    async fn who(&self, conversation: ConversationId) -> Result<(), Failure> {
        let Some(view) = self.view(conversation).await? else { return Ok(()) };
        let members = view.members.iter().map(|member| {
            let leaving = if view.leaving.contains(member) { " (leaving)" } else { "" };
            format!("@{}{leaving}", name(member))
        });
        let members: Vec<_> = members.collect();
        let state = if view.ready { "" } else { " (not ready yet)" };
        self.screen.line(&format!("  {}{state}: {}", self.called(&view), members.join(" ")));
        Ok(())
    }

    async fn list(&self) -> Result<(), Failure> {
        let all = self.session.conversations().await?;
        for view in &all {
            let here = if self.current.is_some_and(|current| view.parts.contains(&current)) { "→" } else { " " };
            let short = &view.short_id;
            let members = match view.members.len() {
                1 => "1 member".into(),
                count => format!("{count} members"),
            };
            let leaving = if self.is_leaving(view) { " (leaving)" } else { "" };
            self.screen.line(&format!(" {here} {}  ~{short}  ({members}){leaving}", self.called(view)));
        }
        if all.is_empty() {
            self.screen.note("no conversation yet; @HANDLE TEXT begins one");
        }
        Ok(())
    }

    pub(super) async fn view(&self, conversation: ConversationId) -> Result<Option<ConversationView>, Failure> {
        let view = self.session.client.conversation(conversation).await;
        view.map_err(|error| self.session.request(error))
    }

    /// `#team` or `@bob`.
    pub(super) fn called(&self, view: &ConversationView) -> String {
        if view.kind == Kind::Group {
            return format!("#{}", typed(&called(view)));
        }
        let other = other_of(view, self.me).map(name);
        let other = other.or_else(|| view.parts.iter().find_map(|id| self.asked.get(id)).map(ToString::to_string));
        other.map_or_else(|| "…".into(), |other| format!("@{other}"))
    }

    /// What stands after a name: nothing in a conversation of two, the group otherwise.
    pub(super) async fn place(&self, conversation: ConversationId) -> Result<String, Failure> {
        let view = self.view(conversation).await?;
        Ok(view.map_or(String::new(), |view| place_of(&view)))
    }

    /// The same of what ended, which may be a chat of two, or one that had no name yet.
    pub(super) async fn place_left(&self, conversation: ConversationId) -> Result<String, Failure> {
        let Some(view) = self.view(conversation).await? else { return Ok(" the conversation".into()) };
        let place = place_of(&view);
        Ok(match (place.is_empty(), &view.peer) {
            (false, _) => place,
            (true, Some(_)) => format!(" the chat with {}", self.called(&view)),
            (true, None) => " the conversation".into(),
        })
    }

    /// What stands after one's own name among what others wrote: to whom it went, or the group.
    pub(super) async fn place_to(&self, conversation: ConversationId) -> Result<String, Failure> {
        let view = self.view(conversation).await?;
        Ok(view.map_or(String::new(), |view| format!("{}{}", place_of(&view), self.behind_own(&view))))
    }

    /// ` to @bob` in a chat of two.
    pub(super) fn behind_own(&self, view: &ConversationView) -> String {
        if view.kind == Kind::Group { String::new() } else { format!(" to {}", self.called(view)) }
    }

    /// Keeps the prompt's target in step.
    pub(super) async fn show_target(&self) -> Result<(), Failure> {
        let view = match self.current {
            Some(current) => self.view(current).await?,
            None => None,
        };
        let target = view.map(|view| self.called(&view));
        self.paper.change(|_, prompt| prompt.set_target(target));
        Ok(())
    }

    /// What Tab completes.
    pub(super) async fn learn_names(&self) -> Result<(), Failure> {
        let known = self.session.client.query(|core| core.known_handles()).await;
        let handles = known.map_err(|error| self.session.request(error))?;
        let all = self.session.conversations().await?;
        let groups = all.iter().filter(|view| view.kind == Kind::Group).map(|view| typed(&called(view)));
        let handles = handles.iter().map(|handle| format!("@{handle}"));
        let names = handles.chain(groups.map(|group| format!("#{group}"))).collect();
        self.paper.change(|_, prompt| prompt.set_names(names));
        Ok(())
    }
}

/// What stands after a name: nothing in a conversation of two, the group otherwise.
pub(super) fn place_of(view: &ConversationView) -> String {
    if view.kind == Kind::Group { format!(" #{}", typed(&called(view))) } else { String::new() }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the user wants.

use pli_domain::{AccountId, Class, ConversationId, Handle, UnixMillis};

use super::conversation::{Conversation, Phase, WORK_MAX, Work};
use super::tables::RowStatus;
use super::{Command, CommandError, Core, Effects, GROUP_OTHERS_MAX, OutgoingMessage, Row, TEXT_BYTES_MAX};
use crate::content::{Content, Kind, group_name};
use crate::outbox::OutLane;

impl Core {
    /// Takes a command of the user.
    pub fn command(&mut self, command: Command, now: UnixMillis) -> Result<Effects, CommandError> {
        match command {
            Command::StartConversation { handle } => self.start(handle)?,
            Command::CreateGroup { name, handles } => self.create_group_of(name, handles, now)?,
            Command::SendText { conversation, text } => self.send_text(conversation, &text, now)?,
            Command::AddMembers { conversation, handles } => self.add(conversation, handles)?,
            Command::RemoveMembers { conversation, accounts } => self.remove(conversation, accounts)?,
            Command::Leave { conversation } => self.leave(conversation)?,
            Command::AddDevice { device, key, name } => self.add_device(device, key, &name)?,
            Command::RemoveDevice { device } => self.remove_device(device)?,
            Command::RenameDevice { device, name } => self.rename_device(device, &name)?,
            Command::MarkRead { conversation } => self.mark_read(conversation)?,
        }
        Ok(self.finish(now))
    }

    /// Changes that the user asked for and that are neither made nor refused: conversations to begin, members or devices to
    /// add or remove, and wishes to leave that the server does not have yet. Once it has one, another member carries it out.
    /// A removal that a restored server has lost was asked for, too.
    pub fn open_changes(&self) -> usize {
        let open = |c: &Conversation, work: &Work| match work {
            Work::Add(_) | Work::Remove(_) | Work::KeepOut => true,
            Work::Leave => !c.proposal.as_ref().is_some_and(|proposal| proposal.taken),
            Work::Dismiss(..) | Work::Gather(..) | Work::Align(_) => false,
        };
        let members: usize =
            self.conversations.values().map(|c| c.work.iter().filter(|work| open(c, work)).count()).sum();
        members + self.own_list.waiting()
    }

    /// Whether the conversation's first change is finished and everything written in it is accepted, the name that a
    /// change brings to newcomers too.
    pub fn is_settled(&self, conversation: ConversationId) -> bool {
        let lane = OutLane { conversation, class: Class::Message };
        let changing =
            |c: &Conversation| c.commit.is_some() || matches!(c.work.front(), Some(Work::Add(_) | Work::Remove(_)));
        !self.conversations.get(&conversation).is_some_and(changing) && !self.outbox.lane_busy(&lane)
    }

    /// Whether people are still to be added to or removed from the chat, as the user asked for.
    pub fn is_changing(&self, conversation: ConversationId) -> bool {
        let is_open = |work: &Work| matches!(work, Work::Add(_) | Work::Remove(_));
        let parts = self.chat(conversation);
        parts.iter().any(|part| self.conversations.get(part).is_some_and(|c| c.work.iter().any(is_open)))
    }

    fn start(&mut self, handle: Handle) -> Result<(), CommandError> {
        if &handle == self.identity.handle() {
            return Err(CommandError::Oneself);
        }
        let account = self.account_of(&handle);
        let known = account.and_then(|account| self.direct_with(account)).or_else(|| self.founded_for(&handle));
        let id = known.unwrap_or_else(|| self.found(Kind::Direct, None, vec![handle]));
        if let (None, Some(account)) = (known, account) {
            self.set_peer(id, account);
        }
        self.out.outcome.conversation = Some(id);
        Ok(())
    }

    fn found(&mut self, kind: Kind, name: Option<String>, handles: Vec<Handle>) -> ConversationId {
        let id = ConversationId::from_bytes(self.random_id());
        let conversation = Conversation {
            kind: Some(kind),
            name,
            work: [Work::Add(handles)].into(),
            lane_base: 1,
            ..Conversation::default()
        };
        self.conversations.insert(id, conversation);
        self.number(id);
        self.dirty.insert(Row::Conversation(id));
        id
    }

    fn create_group_of(&mut self, name: String, handles: Vec<Handle>, now: UnixMillis) -> Result<(), CommandError> {
        let name = group_name(&name)?.to_owned();
        if self.named_first().contains_key(name.as_str()) {
            return Err(CommandError::GroupNameTaken(name));
        }
        let handles = self.others(handles)?;
        let id = self.found(Kind::Group, Some(name), handles);
        self.announce_name(id, now);
        self.out.outcome.conversation = Some(id);
        Ok(())
    }

    /// The handles without repetitions; errors when one is one's own or there are too many or none.
    fn others(&self, mut handles: Vec<Handle>) -> Result<Vec<Handle>, CommandError> {
        handles.sort();
        handles.dedup();
        if handles.contains(self.identity.handle()) {
            return Err(CommandError::Oneself);
        }
        if handles.is_empty() || handles.len() > GROUP_OTHERS_MAX {
            return Err(CommandError::GroupSize);
        }
        Ok(handles)
    }

    fn active(&mut self, id: ConversationId) -> Result<&mut Conversation, CommandError> {
        let conversation = self.conversations.get_mut(&id).ok_or(CommandError::UnknownConversation)?;
        match conversation.phase {
            Phase::Left | Phase::Failed => Err(CommandError::NotAMember),
            Phase::Founding | Phase::Active => Ok(conversation),
        }
    }

    fn send_text(&mut self, id: ConversationId, text: &str, now: UnixMillis) -> Result<(), CommandError> {
        if text.is_empty() {
            return Err(CommandError::TextEmpty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(CommandError::TextTooLong(text.len()));
        }
        let id = self.target(id);
        self.active(id)?;
        let content = Content::text(self.random_id(), text);
        let lane = OutLane { conversation: id, class: Class::Message };
        let (send_id, lane_no) = self.push(lane, self.order + 1, &content, now)?;
        let order = self.next_order();
        if let Some(message) = self.outbox.get(&send_id).cloned() {
            self.write_own(&message, RowStatus::Waiting, UnixMillis(0));
        }
        self.out.outcome.conversation = Some(id);
        self.out.outcome.message = Some(OutgoingMessage { send_id, lane_no, order });
        Ok(())
    }

    fn begin_work(&mut self, id: ConversationId, work: Work) -> Result<(), CommandError> {
        let id = if self.is_over(id) { self.last_of(id) } else { id };
        let conversation = self.active(id)?;
        if conversation.kind() == Kind::Direct && work != Work::Leave {
            return Err(CommandError::NotAGroup);
        }
        if work != Work::Leave && conversation.work.contains(&Work::Leave) {
            return Err(CommandError::Leaving);
        }
        if conversation.work.len() >= WORK_MAX {
            return Err(CommandError::Busy(conversation.work.len()));
        }
        if work != Work::Leave || !conversation.work.contains(&work) {
            conversation.work.push_back(work);
        }
        self.dirty.insert(Row::Conversation(id));
        self.out.outcome.conversation = Some(id);
        Ok(())
    }

    fn add(&mut self, id: ConversationId, handles: Vec<Handle>) -> Result<(), CommandError> {
        let handles = self.others(handles)?;
        self.begin_work(id, Work::Add(handles.clone()))?;
        let accounts = handles.iter().filter_map(|handle| self.account_of(handle)).collect();
        if let Some(id) = self.out.outcome.conversation {
            self.hurry_wishes(id, &accounts);
        }
        Ok(())
    }

    fn remove(&mut self, id: ConversationId, accounts: Vec<AccountId>) -> Result<(), CommandError> {
        let id = if self.is_over(id) { self.last_of(id) } else { id };
        self.active(id)?;
        if accounts.contains(&self.identity.address().account) {
            return Err(CommandError::Oneself);
        }
        let inside = self.members(id);
        if accounts.is_empty() || accounts.iter().any(|a| inside.iter().all(|m| m.account != *a)) {
            return Err(CommandError::NotThere);
        }
        self.begin_work(id, Work::Remove(accounts))
    }

    /// Leaves every conversation of the chat.
    fn leave(&mut self, id: ConversationId) -> Result<(), CommandError> {
        let target = self.target(id);
        for part in self.chat(id).into_iter().filter(|part| *part != target) {
            // Those that are over are left already.
            if self.active(part).is_ok() {
                self.begin_work(part, Work::Leave)?;
            }
        }
        self.begin_work(target, Work::Leave)
    }

    fn mark_read(&mut self, id: ConversationId) -> Result<(), CommandError> {
        // Of what is over nobody is told; the last that was said there is read all the same.
        if !self.conversations.contains_key(&self.target(id)) {
            return Err(CommandError::UnknownConversation);
        }
        for part in self.chat(id) {
            let Ok(conversation) = self.active(part) else { continue };
            let mut changed = false;
            for mark in conversation.ours.values_mut().filter(|m| m.read < m.shown()) {
                mark.read = mark.shown();
                changed = true;
            }
            if changed {
                self.dirty.insert(Row::Conversation(part));
            }
        }
        self.out.outcome.conversation = Some(id);
        Ok(())
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! How conversations are called, and which one a user means.
//!
//! The group that was known first keeps the plain name, so that a later invitation cannot take it; every other one of
//! that name is `NAME~SHORTID`, and any conversation is `~SHORTID` or its whole id.

use pli_client::core::content::Kind;
use pli_client::core::{ConnectionState, ConversationView, Event, Member};
use pli_domain::{AccountId, ConversationId, Handle};
use tokio::time::interval;

use super::session::{Deadline, LOOK_EVERY, Session};
use crate::exit::{Exit, Failure};

/// Names that an error lists.
const LISTED_MAX: usize = 5;

/// The id of the conversation that the user calls so.
pub fn group_named(conversations: &[ConversationView], text: &str) -> Result<ConversationId, Failure> {
    let exact = |view: &&ConversationView| {
        (!text.is_empty() && view.label == text) || view.parts.iter().any(|id| id.to_string() == text)
    };
    if let Some(view) = conversations.iter().find(exact) {
        return Ok(view.id);
    }
    let (name, short) = text.split_once('~').map_or((text, None), |(name, short)| (name, Some(short)));
    let is_named = |view: &&ConversationView| name.is_empty() || view.name.as_deref() == Some(name);
    let fits = |view: &&ConversationView| {
        short.is_some_and(|short| !short.is_empty() && view.parts.iter().any(|id| id.to_string().starts_with(short)))
    };
    let found: Vec<&ConversationView> = conversations.iter().filter(is_named).filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => Err(unknown(text, name, conversations)),
        several => {
            let which = listed(several.iter().copied());
            Err(Failure::say(Exit::Refused, format_args!("`{text}` fits several conversations; type one of {which}")))
        }
    }
}

/// The same, of what is here once everything has arrived that waited at the server.
pub async fn group_here(session: &mut Session, text: &str) -> Result<ConversationId, Failure> {
    group_or_over(session, text).await?.ok_or_else(|| ended(session, text))
}

/// The same; none where it is a group that is over for this account.
pub async fn group_or_over(session: &mut Session, text: &str) -> Result<Option<ConversationId>, Failure> {
    let all = session.client.conversations().await.map_err(|error| session.request(error))?;
    let (over, conversations): (Vec<_>, Vec<_>) = all.into_iter().partition(|view| view.left);
    let found = group_named(&conversations, text);
    if found.is_err() && may_arrive(&conversations, text) && over.iter().any(|view| is_called(view, text)) {
        return Ok(None);
    }
    found.map(Some)
}

/// The same; a group that nothing here is called by is waited for, because its invitation may still be on its way, unless
/// it is one that is over for this account: what brings it back would be here with everything else that waited. What happens
/// meanwhile goes to `seen`.
pub async fn group_arriving(
    session: &mut Session,
    text: &str,
    deadline: Deadline,
    mut seen: impl AsyncFnMut(&Event),
) -> Result<ConversationId, Failure> {
    let (mut told, mut look) = (false, interval(LOOK_EVERY));
    loop {
        let all = session.client.conversations().await.map_err(|error| session.request(error))?;
        let (over, conversations): (Vec<_>, Vec<_>) = all.into_iter().partition(|view| view.left);
        let unknown = match group_named(&conversations, text) {
            Err(unknown) if may_arrive(&conversations, text) => unknown,
            found => return found,
        };
        let is_over = over.iter().any(|view| is_called(view, text));
        if is_over && session.has_shown_all().await? {
            return Err(ended(session, text));
        }
        if !told && !is_over && session.client.status().borrow().state == ConnectionState::Online {
            told = true;
            crate::terminal::tell!("waiting for the group `{text}`, which is not here yet; Ctrl-C ends it");
        }
        match session.next_or(deadline, &mut look).await {
            Ok(event) => {
                if let Some(event) = event {
                    seen(&event).await;
                }
            }
            // Everything is here that the server has, and the group is not.
            Err(late) if late.exit == Exit::TimedOut => return Err(unknown),
            Err(failure) => return Err(failure),
        }
    }
}

/// Said of somebody who is added to a group that they have asked to leave.
pub fn leaves_first(view: &ConversationView, handle: &Handle) -> Option<String> {
    let leaves = view.leaving.iter().any(|member| member.handle.as_ref() == Some(handle));
    let group = typed(&called(view));
    leaves.then(|| format!("@{handle} has asked to leave #{group}: taken out first, then added again"))
}

/// Whether a group could be meant by this that takes no messages any more.
fn is_called(view: &ConversationView, text: &str) -> bool {
    let (name, short) = text.split_once('~').unwrap_or((text, ""));
    let has = |part: &str| view.parts.iter().any(|id| id.to_string().starts_with(part));
    let fits = match short {
        "" => view.name.as_deref() == Some(name),
        short => (name.is_empty() || view.name.as_deref() == Some(name)) && has(short),
    };
    view.kind == Kind::Group && (fits || view.parts.iter().any(|id| id.to_string() == text))
}

/// That a group is over for this account.
pub fn ended(session: &Session, text: &str) -> Failure {
    let handle = &session.name.handle;
    let lists = session.invocation.line_here(&format!("group list {handle} --all"));
    Failure::say(
        Exit::Refused,
        format_args!(
            "you are no longer in the group `{text}`: you left it, were removed, or it could not be made or has ended; somebody in it \
             has to add you again (`pli group add THEM NAME {handle}`), or send to another one; `{lists}` shows all"
        ),
    )
}

/// Whether nothing here could be what is meant. A name that fits with another short id is a slip of the user.
fn may_arrive(conversations: &[ConversationView], text: &str) -> bool {
    let name = text.split_once('~').map_or(text, |(name, _)| name);
    !name.is_empty() && conversations.iter().all(|view| view.name.as_deref() != Some(name))
}

fn unknown(text: &str, name: &str, conversations: &[ConversationView]) -> Failure {
    let is_named = |view: &&ConversationView| !name.is_empty() && view.name.as_deref() == Some(name);
    let which = listed(conversations.iter().filter(is_named));
    let groups = listed(conversations.iter().filter(|view| view.kind == Kind::Group));
    let fix = match (which.is_empty(), groups.is_empty()) {
        (false, _) => format!("type one of {which}"),
        (true, false) => format!("you are in {groups}; `/list` in a chat or `pli group list HANDLE` shows all"),
        (true, true) => "`/list` in a chat or `pli group list HANDLE` shows all".to_string(),
    };
    Failure::say(Exit::Refused, format_args!("there is no group `{text}`; {fix}"))
}

fn listed<'a>(views: impl Iterator<Item = &'a ConversationView>) -> String {
    let names: Vec<String> = views.take(LISTED_MAX).map(|view| format!("#{}", typed(&called(view)))).collect();
    names.join(", ")
}

/// A group's name as it is typed after `#` where more may follow: in quotes if it would end too early without them.
pub fn typed(name: &str) -> String {
    if !name.contains(char::is_whitespace) && !name.starts_with('"') {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The name at the beginning of what is typed after `#`, and what follows: a word, or everything between two quotes, where
/// a backslash takes the character behind it as it is. None where a quote is not closed, or not followed by a blank.
pub fn named(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Some((word.to_string(), rest));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => {
                let rest = &quoted[at + 1..];
                return (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some((name, rest));
            }
            (_, '\\') => name.push(chars.next()?.1),
            (_, c) => name.push(c),
        }
    }
}

/// What a group is called; the short id where there is no name.
pub fn called(view: &ConversationView) -> String {
    if view.label.is_empty() { format!("~{}", view.short_id) } else { view.label.clone() }
}

/// The other one of a chat of two, as far as it is known who that is.
pub fn other_of(view: &ConversationView, me: AccountId) -> Option<&Member> {
    view.members.iter().chain(&view.peer).find(|member| member.account != me)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(n: u8, name: &str, label: &str) -> ConversationView {
        let id = ConversationId::from_bytes([n; 16]);
        ConversationView {
            id,
            parts: vec![id],
            kind: Kind::Group,
            name: Some(name.into()),
            label: label.into(),
            short_id: id.to_string()[..6].into(),
            members: Vec::new(),
            peer: None,
            leaving: Vec::new(),
            ready: true,
            left: false,
            delivered: 0,
            read: 0,
        }
    }

    #[test]
    fn the_first_known_keeps_the_name_and_the_others_have_short_ids() {
        let all = [view(0x11, "team", "team~111111"), view(0x22, "team", "team"), view(0x12, "x", "x")];
        let found = |text: &str| group_named(&all, text).map_err(|failure| failure.error.to_string());
        assert_eq!(found("team"), Ok(all[1].id));
        assert_eq!(found("team~111111"), Ok(all[0].id));
        assert_eq!(found("team~11"), Ok(all[0].id));
        assert_eq!(found("~12"), Ok(all[2].id));
        assert_eq!(found(&all[2].id.to_string()), Ok(all[2].id));
        let several = found("~1").expect_err("two begin so");
        assert!(several.contains("#team~111111") && several.contains("#x"), "{several}");
        let wrong = found("team~99").expect_err("none");
        assert!(wrong.contains("#team~111111") && wrong.contains("#team"), "{wrong}");
        let nobody = found("nobody").expect_err("none");
        assert!(nobody.contains("/list") && nobody.contains("#team, #x"), "{nobody}");
        assert!(found("~").is_err() && found("").is_err());
    }

    #[test]
    fn every_name_can_be_typed_with_something_behind_it() {
        for name in ["team", "my team", "\"quoted\"", "a\\b c", "\\", "a \"b\" \\", "my team~ab12cd", "#x", "don't"] {
            let line = format!("{} hello you", typed(name));
            let (read, rest) = named(&line).expect("a name");
            assert_eq!((read.as_str(), rest.trim_start()), (name, "hello you"), "{line}");
            assert_eq!(named(&typed(name)), Some((name.to_string(), "")));
        }
        for wrong in ["\"my team", "\"my team\\", "\"my\"team", "\""] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_other_one_is_never_oneself_whatever_one_is_called() {
        let member = |n: u8, handle: &str| Member {
            account: AccountId::from_bytes([n; 16]),
            handle: Some(handle.parse().expect("a handle")),
            former: None,
        };
        let (me, bob) = (member(1, "kate"), member(2, "bob"));
        let chat = |members: &[Member], peer: Option<&Member>| ConversationView {
            kind: Kind::Direct,
            members: members.to_vec(),
            peer: peer.cloned(),
            ..view(1, "", "")
        };
        let other = |view: &ConversationView| other_of(view, me.account).map(Member::name);
        for members in [[me.clone(), bob.clone()], [bob.clone(), me.clone()]] {
            assert_eq!(other(&chat(&members, None)).as_deref(), Some("bob"));
        }
        assert_eq!(other(&chat(&[], Some(&bob))).as_deref(), Some("bob"));
        assert_eq!(other(&chat(std::slice::from_ref(&me), None)), None);
    }

    #[test]
    fn a_group_that_is_over_is_known_by_its_name_and_its_ids() {
        let over = view(0x12, "team", "");
        let id = over.id.to_string();
        for (text, is) in
            [("team", true), ("team~12", true), ("~1212", true), (&id, true), ("team~99", false), ("", false)]
        {
            assert_eq!(is_called(&over, text), is, "{text}");
        }
        assert!(!is_called(&ConversationView { kind: Kind::Direct, ..over }, &id), "a chat of two");
    }

    #[test]
    fn only_a_group_that_nothing_is_called_by_may_be_on_its_way() {
        let all = [view(0x11, "team", "team")];
        for (text, may) in [("guild", true), ("guild~12", true), ("team~99", false), ("~99", false), ("", false)] {
            assert_eq!(may_arrive(&all, text), may, "{text}");
        }
        assert!(may_arrive(&[], &ConversationId::from_bytes([7; 16]).to_string()));
    }
}

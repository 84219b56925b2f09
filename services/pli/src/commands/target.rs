// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a message goes, as the user writes it.

use std::str::FromStr;

use pli_client::core::Event;
use pli_client::{InvalidProfileName, ProfileName};
use pli_domain::{ConversationId, Handle, InvalidHandle};

use super::names::{group_arriving, named};
use super::session::{Deadline, Session};
use crate::exit::Failure;

/// A person, or a group by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `bob` or `@bob`.
    Person(Handle),
    /// `#team`, `group:team`, `~SHORTID`, each also with a short id behind, or 32 hexadecimal digits.
    Group(String),
}

/// What is neither a person nor a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; a group is written '#NAME' or group:NAME")]
pub struct InvalidTarget(InvalidHandle);

impl FromStr for Target {
    type Err = InvalidTarget;
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if let Some(name) = marked(text) {
            return Ok(Self::Group(name));
        }
        if text.starts_with('~') || text.parse::<ConversationId>().is_ok() {
            return Ok(Self::Group(text.to_string()));
        }
        handle(text).map(Self::Person).map_err(InvalidTarget)
    }
}

/// The name behind what marks a group; `#"my team"` as a chat takes it is the group `my team` here too.
fn marked(text: &str) -> Option<String> {
    let Some(name) = text.strip_prefix('#') else { return text.strip_prefix("group:").map(ToString::to_string) };
    let quoted = named(name).filter(|(_, rest)| name.starts_with('"') && rest.is_empty());
    Some(quoted.map_or_else(|| name.to_string(), |(name, _)| name))
}

/// A group's name with or without its mark, where nothing but a group can stand.
pub fn group(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(marked(text).unwrap_or_else(|| text.to_string()))
}

/// A handle with or without its `@`.
pub fn handle(text: &str) -> Result<Handle, InvalidHandle> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// A profile: a handle with or without its `@`, or `HANDLE/NAME` of a companion device.
pub fn profile(text: &str) -> Result<ProfileName, InvalidProfileName> {
    text.parse()
}

impl Target {
    /// The conversation; one with a person is begun if there is none, a group is waited for. What happens meanwhile goes
    /// to `seen`.
    pub async fn conversation(
        &self,
        session: &mut Session,
        deadline: Deadline,
        seen: impl AsyncFnMut(&Event),
    ) -> Result<ConversationId, Failure> {
        match self {
            Self::Person(handle) => {
                session.client.conversation_with(handle.clone()).await.map_err(|error| session.request(error))
            }
            Self::Group(name) => group_arriving(session, name, deadline, seen).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_groups_are_told_apart() {
        let person = |name: &str| Ok(Target::Person(name.parse().expect("a handle")));
        assert_eq!("bob".parse(), person("bob"));
        assert_eq!("@Bob".parse(), person("bob"));
        assert_eq!("#team".parse(), Ok(Target::Group("team".into())));
        assert_eq!("group:a b".parse(), Ok(Target::Group("a b".into())));
        assert_eq!("#a b".parse(), Ok(Target::Group("a b".into())));
        assert_eq!("#\"a b\"".parse(), Ok(Target::Group("a b".into())));
        assert_eq!("group:\"a".parse(), Ok(Target::Group("\"a".into())));
        assert_eq!("~ab12cd".parse(), Ok(Target::Group("~ab12cd".into())));
        let id = "ab".repeat(16);
        assert_eq!(id.parse(), Ok(Target::Group(id)));
        assert!("b".parse::<Target>().is_err());
        let why = "my group".parse::<Target>().expect_err("no handle").to_string();
        assert!(why.contains("at byte 2") && why.contains("'#NAME'"), "{why}");
        for text in ["#team", "group:team", "team"] {
            assert_eq!(group(text).as_deref(), Ok("team"));
        }
    }
}

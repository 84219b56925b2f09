// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a typed line asks for.

use pli_client::core::content::SHORT_ID_MARK;
use pli_client::core::linking::LinkCode;
use pli_domain::Handle;

use crate::commands::names::named;
use crate::commands::target::handle;

/// The commands: name, arguments, what it does.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("/group", "NAME HANDLE…", "make a group; \"MY GROUP\" where the name has blanks"),
    ("/add", "HANDLE…", "add people to the current group"),
    ("/remove", "HANDLE…", "remove people from the current group"),
    ("/leave", "", "leave the current group"),
    ("/who", "", "who is in the current conversation"),
    ("/list", "", "all conversations"),
    ("/history", "[N]", "the last N messages of the current conversation"),
    ("/safety", "[HANDLE]", "the safety number to compare with somebody; alone: with whom the prompt shows"),
    ("/devices", "", "the devices of your account"),
    ("/approve", "CODE", "let in a new device of yours that shows this code; /yes or /no answers what is asked then"),
    ("/unlink", "DEVICE", "remove a device of yours: its name, or the beginning of its id"),
    ("/help", "", "this list"),
    ("/quit", "", "end (Ctrl-D does too)"),
];

/// Said of a group that is not named, or whose quote has no end.
const GROUP_USAGE: &str = "usage: #NAME TEXT, or #\"A NAME\" TEXT where the name has blanks; /list shows the groups";

/// Lines that `/history` shows without a number.
const HISTORY_DEFAULT: usize = 20;
/// Most lines that `/history` shows.
const HISTORY_MAX: usize = 1_000;

/// A typed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `@bob`, `@bob hello`.
    Person(Handle, Option<String>),
    /// `#team`, `#team hello`, `#"my team" hello`.
    Group(String, Option<String>),
    /// `@bob~ab12cd`, `@bob~ab12cd hello`: who had the handle before.
    Former(String, Option<String>),
    /// A line without a name.
    Say(String),
    /// `/group NAME HANDLE…`.
    Create(String, Vec<Handle>),
    /// `/add HANDLE…`.
    Add(Vec<Handle>),
    /// `/remove HANDLE…`, `/remove HANDLE~SHORTID…`.
    Remove(Vec<String>),
    /// `/leave`.
    Leave,
    /// `/who`.
    Who,
    /// `/list`.
    List,
    /// `/history [N]`.
    History(usize),
    /// `/safety HANDLE`, `/safety HANDLE~SHORTID`, or alone.
    Safety(Option<String>),
    /// `/devices`.
    Devices,
    /// `/approve CODE`.
    Approve(LinkCode),
    /// `/yes`, `/no`.
    Answer(bool),
    /// `/unlink DEVICE`.
    Unlink(String),
    /// `/help`.
    Help,
    /// An empty line.
    Nothing,
    /// `/quit`.
    Quit,
}

impl Input {
    /// Whether it is one of [`COMMANDS`], which change or show more than a conversation's next line.
    pub const fn is_command(&self) -> bool {
        !matches!(self, Self::Person(..) | Self::Former(..) | Self::Group(..) | Self::Say(_) | Self::Nothing)
    }

    /// What the line asks for, or a hint what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let text = (!rest.is_empty()).then(|| rest.to_string());
        match word.chars().next() {
            None => Ok(Self::Nothing),
            Some('@') if word.contains(SHORT_ID_MARK) => Ok(Self::Former(person(word)?, text)),
            Some('@') => Ok(Self::Person(one(word)?, text)),
            Some('#') if word.len() > 1 => {
                let (name, rest) = named(&line[1..]).filter(|(name, _)| !name.is_empty()).ok_or(GROUP_USAGE)?;
                let text = rest.trim();
                Ok(Self::Group(name, (!text.is_empty()).then(|| text.to_string())))
            }
            Some('#') if rest.is_empty() => Err(GROUP_USAGE.into()),
            // A message may begin with a slash: `//like this`.
            Some('/') if !word.starts_with("//") => command(word, rest),
            Some('/') => Ok(Self::Say(line[1..].to_string())),
            Some(_) => Ok(Self::Say(line.to_string())),
        }
    }
}

fn command(word: &str, rest: &str) -> Result<Input, String> {
    match word {
        "/leave" if !rest.is_empty() => {
            Err("/leave leaves the group that you are in here: go to the one that you mean with #NAME first".into())
        }
        "/who" | "/list" | "/devices" | "/yes" | "/no" | "/help" | "/quit" | "/exit" if !rest.is_empty() => {
            Err(format!("usage: {word}"))
        }
        "/group" => {
            let (name, members) =
                named(rest.strip_prefix('#').unwrap_or(rest)).ok_or("usage: /group \"A NAME\" HANDLE…")?;
            if name.is_empty() || members.trim().is_empty() {
                return Err("usage: /group NAME HANDLE…".into());
            }
            Ok(Input::Create(name, several(members)?))
        }
        "/add" => Ok(Input::Add(several(rest)?)),
        "/remove" => Ok(Input::Remove(several_of(rest, person)?)),
        "/leave" => Ok(Input::Leave),
        "/who" => Ok(Input::Who),
        "/list" => Ok(Input::List),
        "/history" if rest.is_empty() => Ok(Input::History(HISTORY_DEFAULT)),
        "/history" => {
            let rows = rest.parse().ok().filter(|rows| *rows > 0).map(|rows: usize| rows.min(HISTORY_MAX));
            rows.map(Input::History).ok_or_else(|| format!("usage: /history [N], N from 1 to {HISTORY_MAX}"))
        }
        "/safety" if rest.is_empty() => Ok(Input::Safety(None)),
        "/safety" => person(rest).map(|person| Input::Safety(Some(person))),
        "/devices" => Ok(Input::Devices),
        "/approve" if rest.is_empty() => {
            Err("usage: /approve CODE, the one that `pli chat HANDLE/NAME` prints there".into())
        }
        "/approve" => rest.parse().map(Input::Approve).map_err(|error| format!("not a code: {error}")),
        "/yes" => Ok(Input::Answer(true)),
        "/no" => Ok(Input::Answer(false)),
        "/unlink" if rest.is_empty() => Err("usage: /unlink DEVICE; /devices lists them".into()),
        "/unlink" => {
            // A device's name may have blanks without marks around it.
            let (name, more) = named(rest).filter(|_| rest.starts_with('"')).unwrap_or((rest.into(), ""));
            let name = if more.trim().is_empty() { name } else { rest.into() };
            Ok(Input::Unlink(name))
        }
        "/help" => Ok(Input::Help),
        "/quit" | "/exit" => Ok(Input::Quit),
        other => Err(format!("`{other}` is no command; /help lists them")),
    }
}

fn one(text: &str) -> Result<Handle, String> {
    handle(text).map_err(|error| format!("`{text}`: {error}"))
}

/// What somebody is called: a handle, or `HANDLE~SHORTID` where another account has the handle now.
fn person(text: &str) -> Result<String, String> {
    let Some((former, short)) = text.split_once(SHORT_ID_MARK) else { return one(text).map(|it| it.to_string()) };
    let former = one(former)?;
    if short.is_empty() || !short.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!(
            "`{text}`: hexadecimal digits stand after `{SHORT_ID_MARK}`, as in the name that is shown"
        ));
    }
    Ok(format!("{former}{SHORT_ID_MARK}{short}"))
}

fn several(text: &str) -> Result<Vec<Handle>, String> {
    several_of(text, one)
}

fn several_of<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let all: Vec<T> = text.split_whitespace().map(read).collect::<Result<_, _>>()?;
    if all.is_empty() { Err("name at least one handle".into()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> Handle {
        name.parse().expect("a handle")
    }

    #[test]
    fn lines_are_read_as_people_type_them() {
        assert_eq!(Input::parse("@bob hello you"), Ok(Input::Person(person("bob"), Some("hello you".into()))));
        assert_eq!(Input::parse("@bob"), Ok(Input::Person(person("bob"), None)));
        assert_eq!(Input::parse("#team hi"), Ok(Input::Group("team".into(), Some("hi".into()))));
        let mine = Input::Group("my team".into(), Some("hi you".into()));
        assert_eq!(Input::parse("#\"my team\"  hi you"), Ok(mine));
        assert_eq!(Input::parse("#\"my team\""), Ok(Input::Group("my team".into(), None)));
        assert_eq!(Input::parse("#~ab12cd hi"), Ok(Input::Group("~ab12cd".into(), Some("hi".into()))));
        assert_eq!(Input::parse("# a heading"), Ok(Input::Say("# a heading".into())));
        let made = Input::Create("my team".into(), vec![person("bob")]);
        assert_eq!(Input::parse("/group \"my team\" bob"), Ok(made.clone()));
        assert_eq!(Input::parse("/group #\"my team\" @bob"), Ok(made));
        assert_eq!(Input::parse("hello"), Ok(Input::Say("hello".into())));
        assert_eq!(Input::parse("//etc"), Ok(Input::Say("/etc".into())));
        assert_eq!(Input::parse("  "), Ok(Input::Nothing));
        let members = vec![person("bob"), person("carol")];
        assert_eq!(Input::parse("/group team bob @carol"), Ok(Input::Create("team".into(), members)));
        for typed in ["/unlink work laptop", "/unlink \"work laptop\"", "/unlink  work laptop "] {
            assert_eq!(Input::parse(typed), Ok(Input::Unlink("work laptop".into())), "{typed}");
        }
        assert_eq!(Input::parse("/safety"), Ok(Input::Safety(None)));
        assert_eq!(Input::parse("/safety bob"), Ok(Input::Safety(Some("bob".into()))));
        assert_eq!(Input::parse("/safety @bob~ab12cd"), Ok(Input::Safety(Some("bob~ab12cd".into()))));
        let removed = Input::Remove(vec!["carol".into(), "bob~ab12cd".into()]);
        assert_eq!(Input::parse("/remove @carol bob~ab12cd"), Ok(removed));
        let former = |text: Option<&str>| Ok(Input::Former("bob~ab12cd".into(), text.map(str::to_owned)));
        assert_eq!(Input::parse("@bob~ab12cd hi you"), former(Some("hi you")));
        assert_eq!(Input::parse("@bob~ab12cd"), former(None));
        let made = |name: &str| Ok(Input::Create(name.into(), vec![person("bob")]));
        assert_eq!(Input::parse("/group #x bob"), made("x"));
        assert_eq!(Input::parse("/group ##x bob"), made("#x"));
        assert_eq!(Input::parse("##x hi"), Ok(Input::Group("#x".into(), Some("hi".into()))));
        assert_eq!(Input::parse("/history 5"), Ok(Input::History(5)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for line in [
            "/nope",
            "/group team",
            "/add",
            "/add bob~ab12cd",
            "/remove",
            "@b",
            "@bob~",
            "@bob~xyz",
            "/safety b~ab",
            "/history many",
            "/history 0",
            "/leave team",
            "/quit now",
            "/devices all",
            "/approve",
            "/approve nonsense",
            "/unlink",
            "/yes please",
        ] {
            assert!(Input::parse(line).is_err(), "{line}");
        }
        for line in
            ["#", " # ", "#\"my team hello", "#\"my\"team hello", "#\"\" hello", "/group \"my team bob", "/group"]
        {
            let said = Input::parse(line).expect_err(line);
            assert!(said.starts_with("usage: "), "{line}: {said}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Tab completes.

use super::input::COMMANDS;
use super::prompt::Prompt;
use crate::commands::names::named;

/// Where the last word of `before` begins, and what it may be: a command at the beginning of the line, a handle or group
/// anywhere.
pub fn complete(prompt: &Prompt, before: &str) -> (usize, Vec<String>) {
    let start = beginning(prompt, before);
    let word = &before[start..];
    let pair = |text: String| text + " ";
    if start == 0 && word.starts_with('/') {
        let commands = COMMANDS.iter().map(|(name, _, _)| (*name).to_string());
        return (start, commands.filter(|name| name.starts_with(word)).map(pair).collect());
    }
    if word.starts_with(['@', '#']) {
        return (start, prompt.names(word).into_iter().map(pair).collect());
    }
    // Commands take bare handles.
    let bare = |name: String| pair(name.trim_start_matches('@').to_string());
    let names = if before.starts_with('/') { prompt.names(&format!("@{word}")) } else { Vec::new() };
    (start, names.into_iter().map(bare).collect())
}

/// Where the last word begins; a group's name may have blanks in it.
fn beginning(prompt: &Prompt, before: &str) -> usize {
    let is_word = |at: &usize| *at == 0 || before[..*at].ends_with(' ');
    let quoted = before.rmatch_indices("#\"").map(|(at, _)| at).find(is_word);
    if let Some(at) = quoted.filter(|at| named(&before[at + 1..]).is_none()) {
        return at;
    }
    if before.starts_with('#') && !prompt.names(before).is_empty() {
        return 0;
    }
    before.rfind(' ').map_or(0, |space| space + 1)
}

/// What all candidates begin with.
pub fn shared_beginning(candidates: &[String]) -> &str {
    let Some(first) = candidates.first() else { return "" };
    let same = |other: &String| {
        let differs = first.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
        differs.unwrap_or(first.len().min(other.len()))
    };
    &first[..candidates.iter().map(same).min().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let mut prompt = Prompt::new("alice".into());
        prompt.set_names(vec!["@bob".into(), "@boris".into(), "#team".into(), "#team~ab12cd".into()]);
        complete(&prompt, line).1
    }

    #[test]
    fn handles_groups_and_commands_are_completed() {
        assert_eq!(completed("@bo"), ["@bob ", "@boris "]);
        assert_eq!(completed("#t"), ["#team ", "#team~ab12cd "]);
        assert_eq!(completed("#team~"), ["#team~ab12cd "]);
        assert_eq!(completed("/sa"), ["/safety "]);
        assert_eq!(completed("/safety bor"), ["boris "]);
        assert!(completed("hello bo").is_empty());
    }

    #[test]
    fn a_name_with_blanks_is_completed_as_it_is_typed() {
        let mut prompt = Prompt::new("alice".into());
        prompt.set_names(vec!["@bob".into(), "#myth".into(), "#\"my team\"".into(), "#\"my tools\"".into()]);
        for (typed, start, found) in [
            ("#my", 0, &["#\"my team\" ", "#\"my tools\" ", "#myth "][..]),
            ("#my te", 0, &["#\"my team\" "]),
            ("#\"my t", 0, &["#\"my team\" ", "#\"my tools\" "]),
            ("#\"my to", 0, &["#\"my tools\" "]),
            ("see #\"my te", 4, &["#\"my team\" "]),
            ("#\"my team\" @b", 11, &["@bob "]),
        ] {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(complete(&prompt, typed), (start, found), "{typed}");
        }
    }

    #[test]
    fn several_candidates_share_a_beginning() {
        let all = ["#team ".to_string(), "#team~ab12cd ".to_string()];
        assert_eq!(shared_beginning(&all), "#team");
        assert_eq!(shared_beginning(&[]), "");
    }
}

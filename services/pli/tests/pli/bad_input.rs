// SPDX-License-Identifier: MIT OR Apache-2.0
//! docs/bad-input.md: every input that the specification lists beside those of a session has a row, and every row a test
//! that asserts what the row says.

use std::fs;
use std::path::Path;

use pli_api::ErrorCode;

const PAGE: &str = include_str!("../../../../docs/bad-input.md");

/// What the specification lists; each needs one row. The rest stands in `services/edge/tests/edge/table.rs`.
const LISTED: &[&str] = &[
    "code of a link expired",
    "code of a link used twice",
    "code of a link for another host",
    "link replayed",
    "link with a wrong signature",
    "two new devices at once",
    "eleventh device",
    "removal of the last device",
    "removed device that still sends",
    "removed device that still commits",
    "removed device that still uploads",
    "group of 1,001 devices",
    "tree with duplicate keys",
    "commit by a non-member",
    "welcome for somebody else",
    "archive truncated",
    "archive re-ordered",
    "archive from another account",
];

/// A row of the page.
struct Row<'a> {
    input: &'a str,
    code: &'a str,
    says: &'a str,
    test: &'a str,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    page.lines().filter_map(row_of).filter(|row| row.input != "input" && row.input != "---").collect()
}

fn row_of(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let &[input, code, says, test] = cells.as_slice() else { return None };
    Some(Row { input, code, says: says.trim_matches('"'), test: test.trim_matches('`') })
}

/// What a function of a test file does, without what is only remarked.
fn body_of(source: &str, function: &str) -> Option<String> {
    let (_, begun) = source.split_once(&format!("fn {function}("))?;
    let (body, _) = begun.split_once("\n}\n")?;
    let said = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    Some(said.collect::<Vec<_>>().join("\n"))
}

/// Whether the body names a code: one of the protocol, an exit code, or an error of a crate.
fn is_asserted(code: &str, body: &str) -> bool {
    if let Some(exit) = code.strip_prefix("exit ") {
        return body.contains(&format!("Some({exit})"));
    }
    let word = code.trim_matches('`');
    match ErrorCode::from_str_name(&format!("ERROR_CODE_{word}")) {
        Some(code) => body.contains(&format!("ErrorCode::{code:?}")) || body.contains(&format!("\"{word}\"")),
        None => word.contains("::") && body.contains(word),
    }
}

/// What is wrong with a row; `read` gives the text of a file.
fn wrong(row: &Row<'_>, read: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let Row { input, code, says, test } = row;
    let Some((path, function)) = test.split_once("::") else { return Some(format!("{input}: `{test}` is no test")) };
    let Some(source) = read(path) else { return Some(format!("{input}: there is no {path}")) };
    let Some(body) = body_of(&source, function) else {
        return Some(format!("{input}: {path} has no function {function}"));
    };
    if let Some(code) = code.split(", ").find(|code| !is_asserted(code, &body)) {
        return Some(format!("{input}: {function} does not assert {code}"));
    }
    let is_said = !says.is_empty() && body.contains(*says);
    (!is_said).then(|| format!("{input}: {function} does not assert that \"{says}\" is said"))
}

/// What is wrong with a page on which each of the inputs has to stand.
fn problems(listed: &[&str], page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let rows = rows(page);
    let count = |input: &str| rows.iter().filter(|row| row.input == input).count();
    let miscounted = listed.iter().filter(|input| count(input) != 1);
    let miscounted = miscounted.map(|input| format!("{input}: {} rows", count(input)));
    let unlisted = rows.iter().filter(|row| !listed.contains(&row.input));
    let unlisted = unlisted.map(|row| format!("{}: not listed", row.input));
    miscounted.chain(unlisted).chain(rows.iter().filter_map(|row| wrong(row, &read))).collect()
}

#[test]
fn every_bad_input_has_a_row_and_its_test_asserts_the_code_and_the_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = problems(LISTED, PAGE, |path| fs::read_to_string(root.join(path)).ok());
    assert!(found.is_empty(), "{found:#?}");
}

/// A test file with two tests.
const SOURCE: &str = "
fn it_is_late() {
    // It was said before.
    refused(ErrorCode::NotFound, Some(8), \"ask again\");
}

fn it_is_taken() {
    refused(ErrorCode::IdTaken, Some(2), \"draw another\");
}
";

#[test]
fn a_row_that_is_missing_or_not_so_is_noticed() {
    let row = "| late | `NOT_FOUND`, exit 8 | \"ask again\" | `a.rs::it_is_late` |\n";
    let found = |page: &str| problems(&["late"], page, |path| (path == "a.rs").then(|| SOURCE.to_owned()));
    assert_eq!(found(row), Vec::<String>::new());
    let twice = row.repeat(2);
    for (from, to, noticed) in [
        (row, "", "late: 0 rows"),
        (row, "| late |\n", "late: 0 rows"),
        (row, twice.as_str(), "late: 2 rows"),
        ("| late |", "| early |", "early: not listed"),
        ("`NOT_FOUND`, ", "`ID_TAKEN`, ", "does not assert `ID_TAKEN`"),
        ("`NOT_FOUND`, ", "`LATE`, ", "does not assert `LATE`"),
        ("`NOT_FOUND`, ", "`Late::NotSaid`, ", "does not assert `Late::NotSaid`"),
        ("exit 8", "exit 2", "does not assert exit 2"),
        ("ask again", "draw another", "that \"draw another\" is said"),
        ("ask again", "It was said before", "that \"It was said before\" is said"),
        ("ask again", "", "that \"\" is said"),
        ("it_is_late", "it_is_early", "a.rs has no function it_is_early"),
        ("it_is_late", "it_is", "a.rs has no function it_is"),
        ("a.rs::", "b.rs::", "there is no b.rs"),
        ("a.rs::", "", "`it_is_late` is no test"),
    ] {
        let problems = found(&row.replace(from, to));
        assert!(problems.iter().any(|problem| problem.contains(noticed)), "{noticed}: {problems:?}");
    }
}

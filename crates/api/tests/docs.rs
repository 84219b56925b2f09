// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of codes in docs/protocol.md is the one in the code. `PLI_WRITE_DOCS=1` writes it.

use std::fs;
use std::path::Path;

const MARK: &str = "<!-- codes: rendered from the table in crates/api; a test compares -->\n";

fn rendered() -> String {
    let mut table = String::from("| code | number | temporary | what a client does |\n| --- | --- | --- | --- |\n");
    for row in pli_api::CODES {
        let name = row.code.as_str_name().trim_start_matches("ERROR_CODE_");
        let temporary = if row.temporary { "yes" } else { "no" };
        table += &format!("| `{name}` | {} | {temporary} | {} |\n", row.code as i32, row.advice);
    }
    table
}

#[test]
fn the_page_shows_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, shown) = page.split_once(MARK).expect("the page has the mark");
    if std::env::var_os("PLI_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{MARK}{}", rendered())).expect("the page is written");
        return;
    }
    assert_eq!(shown, rendered(), "run the test again with PLI_WRITE_DOCS=1");
}

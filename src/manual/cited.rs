//! Finds the tests that a page of the manual names, so that none can vanish unnoticed.
//!
//! In tables whose last column is "shown by", that column holds names of test functions between
//! backquotes. They are searched in the sources, not run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Fails with the names that no test function of the house has.
pub(super) fn assert_all_exist(page: &str) {
    let cited = names_in_last_column(page);
    assert!(cited.len() > 10, "the page names {} tests", cited.len());
    let mut known = BTreeSet::new();
    for folder in ["src", "tests"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        collect_tests(&folder, &mut known);
    }
    let missing: Vec<_> = cited.difference(&known).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

fn names_in_last_column(page: &str) -> BTreeSet<String> {
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("//! |")?.strip_suffix('|'));
    let cells = rows.filter_map(|row| row.rsplit('|').next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// Adds the name of each function that stands behind a test attribute.
fn collect_tests(folder: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the sources are part of the house") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            collect_tests(&path, known);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            let behind = text
                .split("test]")
                .skip(1)
                .chain(text.split("test(").skip(1));
            let names = behind.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            known.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

//! Instructions and allocations by callgrind: what a process did, and by slope what one session did.
//!
//! The slope between two runs that differ only in the number of sessions is free of start-up and of
//! everything that does not grow with sessions, and no other load of the machine changes it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::tools;

/// What one run under callgrind counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// User instructions.
    pub(crate) instructions: u64,
    /// Calls that allocate or resize.
    pub(crate) allocations: u64,
    /// Own instructions by function, for the reader of a profile.
    pub(crate) by_function: BTreeMap<String, u64>,
}

/// The functions whose calls are allocations: glibc's and, prefixed, jemalloc's.
const ALLOCATING: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
];

/// Instructions of so many picks, which the comparison's binary makes.
pub(crate) fn picks(
    comparison: &Path,
    folder: &Path,
    policy: &str,
    backends: u32,
    picks: u32,
) -> Result<f64> {
    let mut command = command(comparison, folder)?;
    command
        .args(["role", "pick", policy])
        .args([backends, picks].map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = Process::spawn(&mut command)?.wait()?;
    if !status.success() {
        bail!("picking under callgrind ended with {status}");
    }
    Ok(read(folder)?.instructions as f64)
}

/// A command that runs a program under callgrind, writing to `folder`.
pub(crate) fn command(program: &Path, folder: &Path) -> Result<Command> {
    let mut command = Command::new(tools::VALGRIND.ensure()?);
    let _ = fs::remove_dir_all(output_folder(folder));
    fs::create_dir_all(output_folder(folder))?;
    command
        .args(["--tool=callgrind", "--fair-sched=yes", "-q"])
        .arg(format!(
            "--callgrind-out-file={}/out.%p",
            output_folder(folder).display()
        ))
        .arg(program);
    Ok(command)
}

/// What the ended process wrote; of a tree, the sum.
pub(crate) fn read(folder: &Path) -> Result<Counted> {
    let mut sum = Counted::default();
    let mut files = 0;
    for entry in fs::read_dir(output_folder(folder))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("callgrind's output {}", path.display()))?;
        let counted = parse(&text);
        sum.instructions += counted.instructions;
        sum.allocations += counted.allocations;
        for (name, cost) in counted.by_function {
            *sum.by_function.entry(name).or_default() += cost;
        }
        files += 1;
    }
    if files == 0 {
        anyhow::bail!(
            "callgrind wrote nothing to {}",
            output_folder(folder).display()
        );
    }
    Ok(sum)
}

/// The functions that grew most between two runs, with their own instructions per unit.
pub(crate) fn growth(few: &Counted, many: &Counted, units: u32, most: usize) -> Vec<(String, f64)> {
    let mut rows: Vec<(String, f64)> = many
        .by_function
        .iter()
        .map(|(name, cost)| {
            let before = few.by_function.get(name).copied().unwrap_or_default();
            (
                name.clone(),
                (*cost as f64 - before as f64) / f64::from(units),
            )
        })
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    rows.truncate(most);
    rows
}

fn output_folder(folder: &Path) -> PathBuf {
    folder.join("callgrind")
}

/// Reads the callgrind format 1: `fn=`/`cfn=` names are given once with a number and then by it.
pub(crate) fn parse(text: &str) -> Counted {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counted = Counted::default();
    let mut function = "";
    let mut called = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(field) = line.strip_prefix("fn=") {
            function = name_of(field, &mut names);
        } else if let Some(field) = line.strip_prefix("cfn=") {
            called = name_of(field, &mut names);
        } else if let Some(field) = line.strip_prefix("calls=") {
            let calls: u64 = field
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            if is_allocating(called) && !is_allocating(function) {
                counted.allocations += calls;
            }
            // The next line is the cost inside the called function: not this one's own.
            let _ = lines.next();
        } else if let Some(field) = line.strip_prefix("totals:") {
            counted.instructions = field.trim().parse().unwrap_or(0);
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            && let Some(cost) = line
                .split(' ')
                .nth(1)
                .and_then(|cost| cost.parse::<u64>().ok())
        {
            *counted.by_function.entry(function.to_owned()).or_default() += cost;
        }
    }
    counted
}

fn name_of<'t>(field: &'t str, names: &mut HashMap<&'t str, &'t str>) -> &'t str {
    match field.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(field).copied().unwrap_or(field),
    }
}

fn is_allocating(function: &str) -> bool {
    let plain = function.split('\'').next().unwrap_or(function);
    let plain = plain.strip_prefix("_rjem_").unwrap_or(plain);
    ALLOCATING.contains(&plain)
}

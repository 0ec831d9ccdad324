//! Counting system calls of a running process, two ways.
//!
//! `strace` names every call and its errors, but slows the process down: right for lock-step work,
//! where the count does not depend on speed. `perf` counts without slowing: right for bulk, where
//! a slow proxy would find larger chunks. Where perf may not count, strace stands in.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::process::Process;
use super::tools;

/// Calls by name: (all, those that failed).
pub(crate) type ByName = BTreeMap<String, (u64, u64)>;

/// Runs `work` under strace and says which calls the process tree made.
pub(crate) fn traced(
    process: &Process,
    folder: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<ByName> {
    let strace = tools::STRACE.ensure()?;
    let summary = folder.join("strace.txt");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-c", "-U", "name,calls,errors", "-o"])
        .arg(&summary);
    let tasks: Vec<u32> = process.tree();
    for id in &tasks {
        command.args(["-p", &id.to_string()]);
    }
    let mut tracer = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start strace")?;
    let errors = tracer.stderr.take().context("the pipe of strace")?;
    let mut lines = BufReader::new(errors).lines();
    for _ in &tasks {
        let line = lines
            .next()
            .context("strace ended before it was attached")??;
        if !line.contains("attached") {
            bail!("strace: {line}");
        }
    }
    let worked = work();
    super::process::send(tracer.id(), Signal::INT)?;
    tracer.wait()?;
    worked?;
    let text = fs::read_to_string(&summary).context("the summary of strace")?;
    Ok(parse(&text))
}

/// The sum over all names.
pub(crate) fn total(calls: &ByName) -> u64 {
    calls.values().map(|(all, _)| all).sum()
}

/// `a 10 · b 3 (1 failed)`: per unit, the most frequent first.
pub(crate) fn describe(few: &ByName, many: &ByName, units: u32) -> String {
    let mut rows: Vec<(f64, f64, &String)> = many
        .iter()
        .map(|(name, (calls, errors))| {
            let (before, failed) = few.get(name).copied().unwrap_or_default();
            let per = |more: u64, less: u64| (more as f64 - less as f64) / f64::from(units);
            (per(*calls, before), per(*errors, failed), name)
        })
        .filter(|(calls, _, _)| *calls > 0.05)
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let text: Vec<String> = rows
        .iter()
        .map(|(calls, failed, name)| {
            if *failed > 0.05 {
                format!("{name} {calls:.1} ({failed:.1} failed)")
            } else {
                format!("{name} {calls:.1}")
            }
        })
        .collect();
    text.join(" · ")
}

pub(crate) fn parse(text: &str) -> ByName {
    let mut calls = ByName::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, all, errors) = match fields.as_slice() {
            [name, all] => (*name, *all, "0"),
            [name, all, errors] => (*name, *all, *errors),
            _ => continue,
        };
        if let (Ok(all), Ok(errors), true) = (all.parse(), errors.parse(), name != "total") {
            calls.insert(name.to_owned(), (all, errors));
        }
    }
    calls
}

/// Counts the calls of the process tree during `work` with perf, without slowing it.
pub(crate) fn counted(
    process: &Process,
    folder: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<u64> {
    match Perf::attach(process, folder) {
        Ok(perf) => {
            let worked = work();
            let count = perf.finish();
            worked?;
            count
        }
        Err(error) => {
            eprintln!("perf cannot count here ({error:#}); strace stands in");
            Ok(total(&traced(process, folder, work)?))
        }
    }
}

/// `perf stat` on a process tree, counting.
struct Perf {
    process: Process,
    control: File,
    answers: File,
    output: PathBuf,
}

impl Perf {
    fn attach(process: &Process, folder: &Path) -> Result<Self> {
        let program = tools::PERF.find().context("perf is not installed")?;
        let [control, answers, output] =
            ["perf.control", "perf.answers", "perf.csv"].map(|name| folder.join(name));
        for fifo in [&control, &answers] {
            let _ = fs::remove_file(fifo);
            let made = Command::new("mkfifo").arg(fifo).status()?;
            if !made.success() {
                bail!("mkfifo failed");
            }
        }
        let _ = fs::remove_file(&output);
        let ids: Vec<String> = process.tree().iter().map(u32::to_string).collect();
        let mut command = Command::new(program);
        command
            .args([
                "stat",
                "-e",
                "raw_syscalls:sys_enter",
                "-D",
                "-1",
                "-x",
                ",",
                "--control",
            ])
            .arg(format!("fifo:{},{}", control.display(), answers.display()))
            .arg("-o")
            .arg(&output)
            .args(["-p", &ids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start perf")?;
        // Both ends of a FIFO: opening it waits for nobody.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (control, answers) = (open(&control)?, open(&answers)?);
        // "Events disabled" is the first line when perf is ready; anything else is its complaint.
        let mut line = String::new();
        if let Some(errors) = child.stderr.take() {
            let mut reader = BufReader::new(errors);
            reader.read_line(&mut line)?;
            // Keep the pipe open and empty, or perf would die of SIGPIPE.
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        }
        let mut perf = Self {
            process: Process::from(child),
            control,
            answers,
            output,
        };
        if !line.contains("disabled") {
            bail!("{}", line.trim());
        }
        perf.say("enable")?;
        Ok(perf)
    }

    fn say(&mut self, word: &str) -> Result<()> {
        writeln!(self.control, "{word}")?;
        let mut answer = [0; 4];
        self.answers.read_exact(&mut answer)?;
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.say("disable")?;
        self.process.end_with(Signal::INT)?;
        let text = fs::read_to_string(&self.output)?;
        text.lines()
            .find(|line| line.contains("raw_syscalls:sys_enter"))
            .and_then(|line| line.split(',').next()?.parse().ok())
            .with_context(|| format!("perf counted nothing: {text}"))
    }
}

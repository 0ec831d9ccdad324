//! Files that are no files: a reload refuses them by name, and the next one works.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use posthouse::config;
use posthouse::control::{Handle, ReloadReport, Running, StartOptions};

use crate::whole::{dead, run_with, wait};

fn pipe(path: &Path) {
    fs::remove_file(path).unwrap();
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

fn reload(handle: &Handle) -> ReloadReport {
    wait(handle.reload("signal")).unwrap()
}

fn run_file(path: &Path) -> Running {
    let options = StartOptions {
        config_path: Some(path.to_path_buf()),
        ..StartOptions::default()
    };
    run_with(options, config::load(path).unwrap())
}

#[test]
fn a_reload_that_finds_a_pipe_for_a_file_is_refused_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let (main, backends) = (
        folder.path().join("posthouse.toml"),
        folder.path().join("backends.toml"),
    );
    let backend = |port| format!("b{port} = {{ address = \"127.0.0.1:{port}\" }}\n");
    let listen = dead();
    let text = format!(
        "workers = 1\n[listeners.mx]\nbind = [\"{listen}\"]\npool = \"mx\"\n[pools.mx]\n\
         backends_file = \"backends.toml\"\nhealth = {{ probe = false }}\n"
    );
    fs::write(&main, &text).unwrap();
    fs::write(&backends, backend(9)).unwrap();
    let running = run_file(&main);
    let mut generation = 1;
    for (file, good) in [(&backends, backend(10)), (&main, text)] {
        pipe(file);
        let report = reload(running.handle());
        let name = file.file_name().unwrap().to_str().unwrap();
        let [mistake] = &report.mistakes[..] else {
            panic!("one mistake: {report:?}");
        };
        for part in [name, "it is a named pipe, not a regular file"] {
            assert!(mistake.contains(part), "{mistake}");
        }
        fs::remove_file(file).unwrap();
        fs::write(file, good).unwrap();
        let report = reload(running.handle());
        generation += 1;
        assert!(report.ok, "{report:?}");
        assert_eq!(report.generation, generation);
    }
}

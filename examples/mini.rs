//! scratch
use std::path::PathBuf;
fn main() {
    let path = PathBuf::from(std::env::args().nth(3).unwrap());
    let config = posthouse::config::load(&path)
        .map_err(|e| format!("{e:?}"))
        .unwrap();
    let telemetry = posthouse::telemetry::start(config.log);
    let running = posthouse::control::start(
        posthouse::control::StartOptions {
            config_path: Some(path),
            signals: posthouse::control::Signals::Handled,
            on_control: None,
        },
        config,
        telemetry,
    )
    .unwrap();
    let e = running.wait();
    std::process::exit(e.exit_code().into());
}

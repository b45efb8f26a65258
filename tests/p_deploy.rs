//! The files of `docs/deploy`, as far as a test can tell: what they say of the program is true of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "support/folder.rs"]
mod folder;

use folder::{Folder, TempFile};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use threadbare::Config;

const BINARY: &str = env!("CARGO_BIN_EXE_threadbare");

/// Where the files expect the program.
const INSTALLED: &str = "/usr/local/bin/threadbare";

/// Flags and signals that the files use and the program may not have yet. A row that has come true is to be deleted.
const NOT_YET: [&str; 0] = [];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn service() -> String {
    text("docs/deploy/threadbare.service")
}

fn kubernetes() -> String {
    text("docs/deploy/kubernetes.yaml")
}

/// The values of a key in a unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The value behind the first `key` of a page of YAML or TOML, without quotes.
fn value<'a>(page: &'a str, key: &str) -> &'a str {
    let found = page.lines().find_map(|line| {
        let rest = line.trim_start().trim_start_matches("- ").strip_prefix(key)?.trim_start();
        Some(rest.strip_prefix([':', '='])?.trim().trim_matches('"'))
    });
    found.unwrap_or_else(|| panic!("no {key} in:\n{page}"))
}

fn seconds(text: &str) -> Duration {
    let digits = text.strip_suffix('s').unwrap_or(text);
    Duration::from_secs(digits.parse().unwrap_or_else(|_| panic!("{text:?} are no seconds")))
}

fn help() -> String {
    let output = Command::new(BINARY).arg("--help").env_remove("RUST_LOG").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn has_flag(help: &str, flag: &str) -> bool {
    help.split([' ', ',', '\n']).any(|word| word == flag)
}

/// Whether this may be missing; says so.
fn may_be_missing(what: &str) -> bool {
    let not_yet = NOT_YET.contains(&what);
    if not_yet {
        println!("skipped: the program has no {what} yet");
    }
    not_yet
}

#[test]
fn every_flag_in_the_files_is_one_of_the_program() {
    let help = help();
    let commands: Vec<String> = values(&service(), "ExecStart")
        .into_iter()
        .chain(values(&service(), "ExecReload"))
        .filter(|command| command.starts_with(INSTALLED))
        .chain([value(&kubernetes(), "args")])
        .map(str::to_owned)
        .collect();
    assert_eq!(commands.len(), 3);
    let mut count = 0;
    for command in commands {
        for flag in command.split([' ', '"', ',', '[', ']']).filter(|word| word.starts_with("--")) {
            assert!(has_flag(&help, flag) || may_be_missing(flag), "{flag} of {command:?} is no flag");
            count += 1;
        }
    }
    assert!(count >= 4);
    assert!(has_flag(&help, "--listen") && !has_flag(&help, "--list"), "the help was not understood");
}

#[test]
fn every_signal_in_the_files_is_one_that_the_program_heeds() {
    let main = text("src/main.rs");
    let service = service();
    let reload = values(&service, "ExecReload");
    let sent = reload.last().unwrap().strip_prefix("/bin/kill -").unwrap().strip_suffix(" $MAINPID").unwrap();
    for signal in [values(&service, "KillSignal")[0].to_owned(), format!("SIG{sent}")] {
        assert!(main.contains(&signal) || may_be_missing(&signal), "{signal} is not heeded");
    }
}

#[test]
fn nobody_is_killed_before_a_drain_is_over() {
    let timeouts = Config::from_args(["127.0.0.1:1"]).unwrap().timeouts;
    let service = service();
    let patience = seconds(values(&service, "TimeoutStopSec")[0]);
    let drain = timeouts.drain_delay + timeouts.drain;
    assert!(patience > drain, "systemd kills after {patience:?}, and a drain takes {drain:?}");
    let page = kubernetes();
    let patience = seconds(value(&page, "terminationGracePeriodSeconds"));
    let drain = seconds(value(&page, "drain_delay")) + seconds(value(&page, "drain"));
    assert!(patience > drain, "Kubernetes kills after {patience:?}, and a drain takes {drain:?}");
}

#[test]
fn the_unit_takes_every_liberty_away_that_is_not_needed() {
    let unit = service();
    for (key, wanted) in [
        ("Type", &["notify"][..]),
        ("NotifyAccess", &["main"]),
        ("KillSignal", &["SIGTERM"]),
        ("Requires", &["threadbare.socket"]),
        ("DynamicUser", &["yes"]),
        ("ProtectSystem", &["strict"]),
        ("ProtectHome", &["yes"]),
        ("NoNewPrivileges", &["yes"]),
        ("CapabilityBoundingSet", &["CAP_NET_BIND_SERVICE"]),
        ("RestrictAddressFamilies", &["AF_INET AF_INET6 AF_UNIX"]),
        ("SystemCallArchitectures", &["native"]),
        ("SystemCallFilter", &["@system-service", "~@privileged"]),
        ("LimitNOFILE", &["1048576"]),
    ] {
        assert_eq!(values(&unit, key), wanted, "{key}");
    }
    assert!(seconds(values(&unit, "WatchdogSec")[0]) > Duration::ZERO);
}

#[test]
fn systemd_understands_the_units() {
    let folder = Folder::new();
    let paths = ["threadbare.service", "threadbare.socket"]
        .map(|name| folder.file(name, text(&format!("docs/deploy/{name}")).replace(INSTALLED, BINARY)));
    let output = Command::new("systemd-analyze").arg("verify").args(&paths).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        println!("skipped: systemd-analyze is not installed");
        return;
    };
    // What it says of other units of this machine is not our business.
    let said = String::from_utf8_lossy(&output.stderr);
    let of_us: Vec<&str> = said.lines().filter(|line| line.contains("threadbare")).collect();
    assert!(of_us.is_empty(), "{}", of_us.join("\n"));
}

#[test]
fn the_pieces_of_the_kubernetes_page_fit_one_another() {
    let page = kubernetes();
    let documents: Vec<&str> = page.split("\n---\n").skip(1).collect();
    let kinds: Vec<&str> = documents.iter().map(|document| value(document, "kind")).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment", "Service"]);
    let [settings, deployment, service] = documents[..] else { panic!("three documents") };
    let port = value(deployment, "containerPort");
    assert_eq!(value(settings, "address"), format!("0.0.0.0:{port}"), "it listens elsewhere than on {port}");
    assert_eq!(value(service, "targetPort"), "http");
    for path in ["/healthz", "/readyz"] {
        let probe = format!("httpGet:\n              path: {path}\n              port: admin\n");
        assert_eq!(deployment.matches(&probe).count(), 1, "no probe of {path}");
        assert!(text("docs/METRICS.md").contains(&format!("| `{path}` |")), "{path} is nothing that it tells");
    }
    let admin_port = deployment.split("- name: admin\n").nth(1).map(|rest| value(rest, "containerPort"));
    assert_eq!(value(settings, "listen"), format!("0.0.0.0:{}", admin_port.unwrap()));
    for document in &documents {
        assert_eq!(value(document, "app.kubernetes.io/name"), "threadbare");
        assert!(!document.contains('\t'));
    }
    for line in [
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [\"ALL\"]",
        "type: RuntimeDefault",
    ] {
        assert!(deployment.lines().any(|there| there.trim() == line), "no {line:?}");
    }
    assert!(!page.contains("preStop:"));
    assert_eq!(value(deployment, "command"), format!("[\"{INSTALLED}\"]"));
    assert!(value(deployment, "args").contains(value(deployment, "mountPath")), "the settings lie elsewhere");
}

#[test]
fn the_kubernetes_page_is_yaml() {
    let script = "import sys\ntry:\n    import yaml\nexcept ImportError:\n    sys.exit(77)\n\
        print(' '.join(page['kind'] for page in yaml.safe_load_all(sys.stdin)))";
    let python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        println!("skipped: python3 is not installed");
        return;
    };
    let mut stdin = python.stdin.take().unwrap();
    let _it_may_have_ended = stdin.write_all(kubernetes().as_bytes());
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        println!("skipped: python3 has no yaml");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ConfigMap Deployment Service");
}

#[test]
fn the_program_takes_the_settings_of_the_kubernetes_page() {
    let help = help();
    if ["--config", "--check"].iter().any(|flag| !has_flag(&help, flag) && may_be_missing(flag)) {
        return;
    }
    let page = kubernetes();
    let (_, settings) = page.split_once("threadbare.toml: |\n").unwrap();
    let settings = settings.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let settings: String = settings.map(|line| format!("{}\n", line.trim_start())).collect();
    let file = TempFile::new(&settings);
    let output = Command::new(BINARY).args(["--config", file.path()]).arg("--check").stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}\nof:\n{settings}", String::from_utf8_lossy(&output.stderr));
}

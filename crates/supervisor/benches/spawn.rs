//! The cost of spawning a child: a bare `Command::spawn` and supervised ones, layer by layer, in
//! one run.
//!
//! All of them start the same program, `cat`, with three pipes. The bench measures the time until
//! the spawn has succeeded, and until the child has answered a line. The methods take turns, so
//! that other load on the machine affects all of them equally; the table has medians.
//!
//! Two more methods measure the alternatives. One is a fork, which `pre_exec` needs; it copies the
//! page tables of the parent, so the bench repeats everything with a large parent. The other is a
//! launcher that restricts itself and then executes the program: here this binary, as a launcher
//! that restricts nothing, a lower bound of the cost of any launcher.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor::{ChildSpec, ChildUsers, Config, Isolation, Supervisor};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Runs of each method. The first is not counted.
const ROUNDS: usize = 200;

/// Additional memory of the parent for the second table: that of a broker with many sessions.
const BALLAST: usize = 256 << 20;

const PROGRAM: &str = "cat";

/// The first argument that makes this binary the launcher.
const LAUNCHER: &str = "launch";

/// A method of starting the program.
enum Method {
    Bare,
    Forked,
    Launcher,
    Supervised(Box<Supervisor>),
}

/// The times until the spawn and until the answer.
type Times = (Duration, Duration);

fn main() {
    if std::env::args().nth(1).as_deref() == Some(LAUNCHER) {
        let error = Command::new(PROGRAM).exec();
        panic!("{PROGRAM}: {error}");
    }
    let runtime = Runtime::new().expect("a runtime");
    let small = table(&runtime);
    println!("A parent of its natural size ({} MB):\n\n{small}", resident() >> 20);
    let ballast = std::hint::black_box(vec![1_u8; BALLAST]);
    let large = table(&runtime);
    println!("A parent of {} MB:\n\n{large}", resident() >> 20);
    drop(std::hint::black_box(ballast));
}

/// Resident memory of this process, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size()
}

fn table(runtime: &Runtime) -> String {
    let methods = methods();
    let mut times: Vec<Vec<Times>> = vec![Vec::new(); methods.len()];
    for _ in 0..=ROUNDS {
        for ((_, method), times) in methods.iter().zip(&mut times) {
            times.push(match method {
                Method::Bare => plain(&mut Command::new(PROGRAM)),
                // To set a user the standard library must fork; this sets the current user.
                Method::Forked => plain(Command::new(PROGRAM).uid(rustix::process::geteuid().as_raw())),
                Method::Launcher => plain(Command::new(own_path()).arg(LAUNCHER)),
                Method::Supervised(supervisor) => runtime.block_on(supervised(supervisor)),
            });
        }
    }
    let medians: Vec<Times> = times
        .iter()
        .map(|times| {
            let median = |which: fn(&Times) -> Duration| {
                let mut sorted: Vec<Duration> = times.iter().skip(1).map(which).collect();
                sorted.sort();
                sorted[sorted.len() / 2]
            };
            (median(|times| times.0), median(|times| times.1))
        })
        .collect();
    let mut text =
        "| method | started, ms | more than bare | answered, ms | more than bare |\n|---|---|---|---|---|\n".to_owned();
    let (bare_started, bare_answered) = medians[0];
    for ((name, _), (started, answered)) in methods.iter().zip(&medians) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let more = |time: &Duration, bare: Duration| ms(*time) - ms(bare);
        text += &format!(
            "| {name} | {:.2} | {:+.2} | {:.2} | {:+.2} |\n",
            ms(*started),
            more(started, bare_started),
            ms(*answered),
            more(answered, bare_answered),
        );
    }
    text
}

/// The bare method first, then the supervised ones, each with one more layer.
fn methods() -> Vec<(&'static str, Method)> {
    let mut isolation = Isolation {
        no_new_privileges: false,
        drop_capabilities: false,
        landlock: false,
        network: false,
        seccomp: false,
        own_directory: false,
        ..Isolation::default()
    };
    let mut methods = vec![
        ("bare `Command::spawn`", Method::Bare),
        ("a `Command::spawn` that forks", Method::Forked),
        ("a launcher that restricts nothing", Method::Launcher),
        ("supervised, not isolated", supervised_method(&isolation)),
    ];
    isolation.no_new_privileges = true;
    methods.push(("+ no_new_privs", supervised_method(&isolation)));
    isolation.drop_capabilities = true;
    methods.push(("+ no capabilities", supervised_method(&isolation)));
    isolation.own_directory = true;
    methods.push(("+ own directory", supervised_method(&isolation)));
    (isolation.landlock, isolation.network) = (true, true);
    methods.push(("+ Landlock", supervised_method(&isolation)));
    isolation.seccomp = true;
    assert_eq!(isolation, Isolation::default(), "the table ends with the default");
    methods.push(("+ seccomp: the default", supervised_method(&isolation)));
    if rustix::process::geteuid().is_root() {
        isolation.users = ChildUsers::Range(3_200_000..=3_200_999);
        methods.push(("+ own user", supervised_method(&isolation)));
    }
    methods
}

fn supervised_method(isolation: &Isolation) -> Method {
    let config = Config {
        isolation: isolation.clone(),
        ..Config::new(std::env::vars_os())
    };
    Method::Supervised(Box::new(Supervisor::new(config).expect("a supervisor")))
}

fn own_path() -> std::path::PathBuf {
    std::env::current_exe().expect("the path of this program")
}

fn plain(command: &mut Command) -> Times {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let before = Instant::now();
    let mut child = command.spawn().expect("a child");
    let started = before.elapsed();
    let (mut stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    stdin.write_all(b"hello\n").expect("a write");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let answered = before.elapsed();
    assert_eq!(line, "hello\n");
    drop(stdin);
    child.wait().expect("an exit");
    (started, answered)
}

async fn supervised(supervisor: &Supervisor) -> Times {
    let spec = ChildSpec {
        program: PROGRAM.into(),
        args: vec![],
        env: vec![],
        secrets: vec![],
        tag: "bench".into(),
    };
    let before = Instant::now();
    let child = supervisor.spawn(spec).await.expect("a child");
    let started = before.elapsed();
    let mut io = tokio::io::BufReader::new(child.take_io().expect("the streams"));
    io.write_all(b"hello\n").await.expect("a write");
    let mut line = String::new();
    io.read_line(&mut line).await.expect("a line");
    let answered = before.elapsed();
    assert_eq!(line, "hello\n");
    child.stop().await;
    (started, answered)
}

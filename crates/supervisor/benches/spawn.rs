//! What it costs to start a child: a bare `Command::spawn` against supervised ones, layer by layer, in one run.
//!
//! All of them start the same program, `cat`, with three pipes. Measured is the time until the start has
//! succeeded, and until the child has answered a line. The ways take turns, so that whatever else the machine
//! does meets all of them alike; the table has medians.
//!
//! Two more ways tell what the alternatives would cost. One is a fork, which `pre_exec` needs; it copies the
//! tables of the parent's memory, and so all is done again with a parent of some size. The other is a launcher
//! that restricts itself and then executes the program: this binary started as one that restricts nothing, which
//! is less than any launcher of this kind can cost.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor::{ChildSpec, Config, Isolation, Supervisor};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// How often each way is gone. The first is not counted.
const ROUNDS: usize = 200;

/// How much memory the parent has in the second table: that of a broker with many sessions.
const BALLAST: usize = 256 << 20;

const PROGRAM: &str = "cat";

/// As first argument: be the launcher.
const LAUNCHER: &str = "launch";

/// One way to start the program.
enum Way {
    Bare,
    Forked,
    Launcher,
    Supervised(Box<Supervisor>),
}

/// Until it was started, and until it had answered.
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

/// What this process occupies, in bytes (proc_pid_statm(5)).
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
    let ways = ways();
    let mut times: Vec<Vec<Times>> = vec![Vec::new(); ways.len()];
    for _ in 0..=ROUNDS {
        for ((_, way), times) in ways.iter().zip(&mut times) {
            times.push(match way {
                Way::Bare => plain(&mut Command::new(PROGRAM)),
                // To set a user the standard library has to fork; here it is the one that it has already.
                Way::Forked => plain(Command::new(PROGRAM).uid(rustix::process::geteuid().as_raw())),
                Way::Launcher => plain(Command::new(own_path()).arg(LAUNCHER)),
                Way::Supervised(supervisor) => runtime.block_on(supervised(supervisor)),
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
        "| way | started, ms | more than bare | answered, ms | more than bare |\n|---|---|---|---|---|\n".to_owned();
    let (bare_started, bare_answered) = medians[0];
    for ((name, _), (started, answered)) in ways.iter().zip(&medians) {
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

/// The bare one first, then the supervised ones, each with one layer more than the one before.
fn ways() -> Vec<(&'static str, Way)> {
    let mut isolation = Isolation {
        no_new_privileges: false,
        drop_capabilities: false,
        landlock: false,
        own_directory: false,
        ..Isolation::default()
    };
    let mut ways = vec![
        ("bare `Command::spawn`", Way::Bare),
        ("a `Command::spawn` that forks", Way::Forked),
        ("a launcher that restricts nothing", Way::Launcher),
        ("supervised, not isolated", way(&isolation)),
    ];
    isolation.no_new_privileges = true;
    ways.push(("+ no_new_privs", way(&isolation)));
    isolation.drop_capabilities = true;
    ways.push(("+ no capabilities", way(&isolation)));
    isolation.own_directory = true;
    ways.push(("+ own directory", way(&isolation)));
    isolation.landlock = true;
    assert_eq!(isolation, Isolation::default(), "the table ends with the default");
    ways.push(("+ Landlock: the default", way(&isolation)));
    if rustix::process::geteuid().is_root() {
        isolation.users = Some(3_200_000..=3_200_999);
        ways.push(("+ own user", way(&isolation)));
    }
    ways
}

fn way(isolation: &Isolation) -> Way {
    let config = Config {
        isolation: isolation.clone(),
        ..Config::new(std::env::vars_os())
    };
    Way::Supervised(Box::new(Supervisor::new(config).expect("a supervisor")))
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

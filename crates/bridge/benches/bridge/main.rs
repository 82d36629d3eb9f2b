//! The cost of a bridge: round trips of `tools/call` through it, compared with its two sides alone.
//!
//! For each number of sessions, one run measures four things in turn: the bare pipe to a child, a
//! bare HTTP server that answers each request with the same bytes, and the bridge over HTTP in
//! front of its child, for clients up to 2025-11-25 and for clients of 2026-07-28, which make no
//! handshake and say with each request who they are. Each session is one client that sends its next
//! request after the response to the previous one. CPU time covers this process (clients and
//! servers) and the children.
//!
//! Environment: `BRIDGE_BENCH_CHILD` is the program to start, the `fake-forgejo-mcp` of `testkit`;
//! `BRIDGE_BENCH_SECONDS` the duration of each measurement; `BRIDGE_BENCH_REPORT` a file for the
//! report, which is printed in any case.
#![expect(clippy::print_stdout, reason = "the benchmark prints its report")]

mod client;

use std::{
    convert::Infallible,
    env, fs,
    future::Future,
    io::{Error, Result},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bridge::{Body, Config, Conversation, Destination, Outcome, Owner};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::BufReader,
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::Instant,
};

use self::client::{Client, Era, Piped, connect, implicit_snapshot, initialize};

const SESSIONS: [usize; 3] = [1, 16, 64];
const WARM_UP: Duration = Duration::from_millis(500);
/// The kernel's unit of CPU time (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{\"text\":\"a text of some forty characters to echo\"}"}]}}"#;

/// One measurement.
struct Measured {
    requests: usize,
    elapsed: Duration,
    cpu: Duration,
    /// In microseconds, sorted.
    latencies: Vec<u64>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(report())?;
    println!("{report}");
    match env::var_os("BRIDGE_BENCH_REPORT") {
        Some(file) => fs::write(file, report),
        None => Ok(()),
    }
}

async fn report() -> Result<String> {
    let seconds = env::var("BRIDGE_BENCH_SECONDS").map_or(Ok(3), |text| text.parse());
    let during = Duration::from_secs(seconds.map_err(Error::other)?);
    let mut servers = JoinSet::new();
    let fixed = listen(&mut servers, |request| async move { Ok(answer_fixed(&request)) }).await?;
    let mut text = format!(
        "# What a bridge costs\n\nRound trips of `tools/call`, {} s each, on {} cores. CPU is user and system time of everything that takes \
         part: client, server, child.\n\n| sessions | what | requests/s | p50 | p99 | CPU per request |\n|---|---|---|---|---|---|\n",
        during.as_secs(),
        std::thread::available_parallelism()?
    );
    for sessions in SESSIONS {
        let pipe = bare_pipe(&fixed, sessions, during).await?;
        let http = bare_http(&fixed, sessions, during).await?;
        let bridge = through_bridge(&fixed, Era::Legacy, sessions, during).await?;
        let modern = through_bridge(&fixed, Era::Modern, sessions, during).await?;
        let ratio = bridge.cpu_each() / (pipe.cpu_each() + http.cpu_each());
        let eras = modern.cpu_each() / bridge.cpu_each();
        for (what, measured) in [
            ("bare pipe (a)", pipe),
            ("bare HTTP (b)", http),
            ("bridge (c)", bridge),
            ("bridge, 2026-07-28 (d)", modern),
        ] {
            text += &measured.row(sessions, what);
        }
        text += &format!("| {sessions} | c / (a + b) | | | | {ratio:.2} |\n");
        text += &format!("| {sessions} | d / c | | | | {eras:.2} |\n");
    }
    Ok(text)
}

async fn bare_pipe(forgejo: &str, sessions: usize, during: Duration) -> Result<Measured> {
    let (mut children, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..sessions {
        let (child, input, output) = start_child(forgejo)?;
        let mut client = Piped {
            input,
            output: BufReader::new(output),
            line: String::new(),
        };
        client.exchange(&initialize()).await?;
        clients.push(client);
        children.push(child);
    }
    measure(clients, &children, during).await
}

async fn bare_http(fixed: &str, sessions: usize, during: Duration) -> Result<Measured> {
    let mut connections = JoinSet::new();
    let clients = connect(&mut connections, fixed, Era::Legacy, sessions).await?;
    measure(clients, &[], during).await
}

/// An owner without servers.
#[derive(Debug)]
struct NoOwner;

impl Owner for NoOwner {
    fn want(&self, _after: u64) {}

    fn changed(&self) {}

    fn touch(&self) {}
}

fn response(outcome: Outcome) -> Response<Body> {
    match outcome {
        Outcome::Answer(response) | Outcome::Opened(response) | Outcome::End(response) => response,
        Outcome::Unserved(why) => {
            let body = Full::new(Bytes::from(why.to_string())).map_err(|never| match never {});
            Response::new(Body::new(body))
        }
    }
}

async fn through_bridge(forgejo: &str, era: Era, sessions: usize, during: Duration) -> Result<Measured> {
    let (mut servers, mut connections) = (JoinSet::new(), JoinSet::new());
    let (mut children, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..sessions {
        let (child, input, output) = start_child(forgejo)?;
        let io = tokio::io::join(output, input);
        let snapshot = match era {
            Era::Legacy => None,
            Era::Modern => Some(implicit_snapshot()?),
        };
        let owner = Arc::new(NoOwner);
        let conversation = Conversation::new(Config::default(), "bench", "grant", owner, snapshot.as_ref());
        let link = conversation
            .connect(1, io, bridge::ServerEra::Legacy)
            .await
            .map_err(Error::other)?;
        conversation.attach(1);
        if era == Era::Legacy {
            let request = Request::post("/").body(Bytes::from(initialize()));
            let outcome = conversation.serve(request.map_err(Error::other)?).await;
            if !matches!(outcome, Outcome::Opened(_)) {
                return Err(Error::other("the child has refused the handshake"));
            }
        }
        let bridge = Arc::new((conversation, link));
        let server = listen(&mut servers, move |mut request: Request<Bytes>| {
            let bridge = Arc::clone(&bridge);
            async move {
                if era == Era::Modern
                    && let Destination::Reply(response) = bridge::route(&mut request, "grant", &Config::default())
                {
                    return Ok(response);
                }
                Ok(response(bridge.0.serve(request).await))
            }
        });
        clients.extend(connect(&mut connections, &server.await?, era, 1).await?);
        children.push(child);
    }
    measure(clients, &children, during).await
}

/// Runs all clients concurrently: a warm-up, then the measurement.
async fn measure<C: Client>(clients: Vec<C>, children: &[Child], during: Duration) -> Result<Measured> {
    let (clients, _) = run(clients, WARM_UP).await?;
    let (before, start) = (cpu(children)?, Instant::now());
    let (_clients, mut latencies) = run(clients, during).await?;
    let elapsed = start.elapsed();
    let cpu = cpu(children)?.saturating_sub(before);
    latencies.sort_unstable();
    Ok(Measured {
        requests: latencies.len(),
        elapsed,
        cpu,
        latencies,
    })
}

async fn run<C: Client>(clients: Vec<C>, during: Duration) -> Result<(Vec<C>, Vec<u64>)> {
    let end = Instant::now() + during;
    let mut running: JoinSet<Result<(C, Vec<u64>)>> = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let start = Instant::now();
                if start >= end {
                    return Ok((client, latencies));
                }
                client.round_trip().await?;
                latencies.push(start.elapsed().as_micros() as u64);
            }
        });
    }
    let (mut clients, mut all) = (Vec::new(), Vec::new());
    while let Some(done) = running.join_next().await {
        let (client, latencies) = done.map_err(Error::other)??;
        clients.push(client);
        all.extend(latencies);
    }
    Ok((clients, all))
}

/// The CPU time of this process and its children (proc_pid_stat(5), fields 14 and 15).
fn cpu(children: &[Child]) -> Result<Duration> {
    let pids = children
        .iter()
        .filter_map(|child| child.id().map(|pid| pid.to_string()));
    let mut ticks = 0;
    for process in pids.chain(["self".to_owned()]) {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, the name, is in parentheses and may contain anything.
        let (_, fields) = stat.rsplit_once(") ").ok_or_else(|| Error::other("a strange stat"))?;
        let used = fields.split(' ').skip(11).take(2);
        ticks += used.map(|field| field.parse().unwrap_or(0)).sum::<u32>();
    }
    Ok(TICK * ticks)
}

fn start_child(forgejo: &str) -> Result<(Child, ChildStdin, ChildStdout)> {
    let program = env::var_os("BRIDGE_BENCH_CHILD").ok_or_else(|| {
        Error::other("BRIDGE_BENCH_CHILD has to name the program fake-forgejo-mcp; cargo xtask bench bridge does that")
    })?;
    let mut child = Command::new(program)
        .args([
            "--transport",
            "stdio",
            "--url",
            &format!("http://{forgejo}"),
            "--token",
            "t",
        ])
        .env("FAKE_FORGEJO_MCP_TEST_TOOLS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(input), Some(output)) => Ok((child, input, output)),
        _ => Err(Error::other("a child without pipes")),
    }
}

/// Serves on a free port and returns its address.
async fn listen<H, F, B>(servers: &mut JoinSet<()>, handler: H) -> Result<String>
where
    H: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = std::result::Result<Response<B>, Infallible>> + Send,
    B: http_body::Body<Data = Bytes, Error: Into<bridge::BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    servers.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let handler = handler.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let handler = handler.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    match handler(Request::from_parts(head, body)).await {
                        Ok(response) => Ok::<_, hyper::Error>(response),
                        Err(never) => match never {},
                    }
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            connections.spawn(async move { http.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    Ok(address)
}

/// The bare server, which also answers the requests that a child makes to Forgejo at its start.
fn answer_fixed(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let body = if request.method() == Method::POST {
        ANSWER
    } else {
        r#"{"version":"12.0.0"}"#
    };
    let mut response = Response::new(Full::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Measured {
    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }

    fn percentile(&self, of_hundred: usize) -> u64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * of_hundred / 100).copied().unwrap_or(0)
    }

    fn row(&self, sessions: usize, what: &str) -> String {
        let per_second = self.requests as f64 / self.elapsed.as_secs_f64();
        let (p50, p99, cpu) = (self.percentile(50), self.percentile(99), self.cpu_each());
        format!("| {sessions} | {what} | {per_second:.0} | {p50} µs | {p99} µs | {cpu:.1} µs |\n")
    }
}

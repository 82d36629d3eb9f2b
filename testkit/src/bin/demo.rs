//! The broker on loopback in front of a fake Forgejo: to try clients on, or to watch a scripted
//! client go through the whole flow. `cargo xtask demo` builds and starts it.
//!
//! The broker runs as a process with its defaults, as an operator would run it. All its files are
//! in a temporary directory that is removed at the end.
#![expect(clippy::print_stdout, reason = "the demo reports to the person who started it")]

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use testkit::{
    Browser, Client, FakeForgejo,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, redirect_uri},
    client::ClientError,
    forgejo::Options,
};
use tokio::time::Instant;

/// The user that the scripted client signs in.
const LOGIN: &str = "alice";
const PASSWORD: &str = "alice-password";

/// The port of the broker if a person tries it.
const PORT: u16 = 8080;

#[derive(Debug, Parser)]
#[command(name = "demo", about = "A fake Forgejo and the broker on loopback")]
struct Arguments {
    /// Play a client through the whole flow, print each step, and exit
    #[arg(long)]
    once: bool,
    /// The port that the broker listens on: 8080, or a free one with --once
    #[arg(long)]
    port: Option<u16>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { once, port } = Arguments::parse();
    let port = port.unwrap_or_else(|| if once { free_port() } else { PORT });
    let (forgejo, mut broker) = start(port).await?;
    let outcome = if once {
        play(&broker).await
    } else {
        invite(&forgejo, &broker).await
    };
    let children = broker.children()?;
    let status = broker.terminate().await?;
    forgejo.stop().await;
    outcome?;
    ensure!(status.success(), "the broker ended with {status}");
    ensure!(
        children.iter().all(|child| !child.is_alive()),
        "a child outlived the broker"
    );
    Ok(())
}

async fn start(port: u16) -> Result<(FakeForgejo, BrokerProcess)> {
    let programs = programs();
    let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port))).await?;
    let child = ChildCommand::fake_forgejo_mcp(&programs.fake_forgejo_mcp);
    let settings = vec![("log.filter".to_owned(), "info".to_owned())];
    let broker = BrokerProcess::start(
        &programs.broker,
        &forgejo,
        BrokerOptions {
            port,
            child: Some(child),
            settings,
            ..BrokerOptions::default()
        },
    )
    .await?;
    Ok((forgejo, broker))
}

async fn invite(forgejo: &FakeForgejo, broker: &BrokerProcess) -> Result<()> {
    let url = broker.mcp_url();
    println!(
        "\
The broker serves   {url}
A fake Forgejo at   {}

Sign in as          alice / alice-password   or   bob / bob-password

Add it to a client:
  Claude Code       claude mcp add --transport http forgejo {url}
  Cursor            ~/.cursor/mcp.json: {{\"mcpServers\": {{\"forgejo\": {{\"url\": \"{url}\"}}}}}}
  VS Code           code --add-mcp '{{\"name\": \"forgejo\", \"type\": \"http\", \"url\": \"{url}\"}}'
  stdio only        npx mcp-remote {url}
  Inspector         npx @modelcontextprotocol/inspector   (Streamable HTTP, {url}, via proxy)

Press Ctrl-C to stop.",
        forgejo.url(),
    );
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    println!("\nShutting down");
    Ok(())
}

async fn play(broker: &BrokerProcess) -> Result<()> {
    let client = Client::new(broker.mcp_url().parse()?);
    let mut browser = Browser::new();
    step("probe", client.probe()).await?;
    step("discover", client.discover()).await?;
    step("register", client.register()).await?;
    step("authorize", client.authorize(&mut browser, LOGIN, PASSWORD)).await?;
    step("exchange", client.exchange()).await?;
    step("initialize", client.initialize()).await?;
    step("initialized", client.initialized()).await?;
    let tools = step("tools/list", client.list_tools()).await?;
    ensure!(!tools.is_empty(), "there are no tools");
    let result = step("tools/call", client.call_tool("get_my_user_info", json!({}))).await?;
    step("delete", client.delete()).await?;
    let login = login(&result)?;
    println!("The tool acted as {login}.");
    ensure!(login == LOGIN, "it should have acted as {LOGIN}");
    Ok(())
}

/// Prints the outcome of a step.
async fn step<T>(name: &str, step: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    let started = Instant::now();
    let outcome = step.await;
    let mark = if outcome.is_ok() { "ok  " } else { "FAIL" };
    println!("{mark} {name:<12} {:>6} ms", started.elapsed().as_millis());
    outcome.with_context(|| format!("{name} failed"))
}

fn login(result: &Value) -> Result<String> {
    let Some(text) = result["content"][0]["text"].as_str() else {
        bail!("the tool returned no text: {result}")
    };
    let user: Value = serde_json::from_str(text).context("the tool returned no JSON")?;
    let login = user
        .get("login")
        .or_else(|| user["Result"].get("login"))
        .and_then(Value::as_str);
    Ok(login.context("the tool returned no login")?.to_owned())
}

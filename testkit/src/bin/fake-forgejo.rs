//! The fake Forgejo for manual use: prints its settings, and serves until Ctrl-C.

use std::{num::ParseIntError, time::Duration};

use anyhow::Context;
use clap::Parser;
use testkit::forgejo::{FakeForgejo, Options};

/// A fake Forgejo on loopback, for development.
#[derive(Debug, Parser)]
struct Arguments {
    /// Port on 127.0.0.1; 0 chooses a free one.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Redirect URI of the default application; may be given several times.
    #[arg(long, default_value = "http://127.0.0.1:8080/oauth/callback")]
    redirect_uri: Vec<String>,
    /// Lifetime of an access token in seconds.
    #[arg(long, value_parser = seconds, default_value = "3600")]
    access_lifetime: Duration,
    /// Lifetime of a refresh token in seconds.
    #[arg(long, value_parser = seconds, default_value = "2628000")]
    refresh_lifetime: Duration,
    /// Allow refresh tokens to be used more than once.
    #[arg(long)]
    reusable_refresh_tokens: bool,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the program prints its settings")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        port: arguments.port,
        redirect_uris: arguments.redirect_uri,
        access_lifetime: arguments.access_lifetime,
        refresh_lifetime: arguments.refresh_lifetime,
        invalidate_refresh_tokens: !arguments.reusable_refresh_tokens,
        ..Options::default()
    };
    let forgejo = FakeForgejo::start(options).await.context("cannot bind the port")?;
    println!("[forgejo]");
    println!("url = {:?}", forgejo.url());
    println!("client_id = {:?}", forgejo.client_id());
    println!("client_secret = {:?}", forgejo.client_secret());
    println!("# sign in as alice (alice-password) or bob (bob-password)");
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    forgejo.stop().await;
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}

//! `child.mode` and what goes with it: the two modes share a section, and a key that means nothing in the chosen one is a fault. An
//! operator who has written down how children are kept apart must not believe that they are.

use std::time::Duration;

use url::{Host, Url};

use super::{Upstream, keys::KEYS, read::Reader, values};

/// The keys of `[child]` that count in both modes.
const SHARED: &[&str] = &["child.mode", "child.start_timeout", "child.stop_grace"];
/// Where the keys of the shared server stand.
const UPSTREAM: &str = "child.upstream.";

/// No server can be spoken to with messages shorter than this.
const SMALLEST: usize = 1024;

/// The shared server, if there is one.
pub(super) fn read(reader: &mut Reader) -> Option<Upstream> {
    let shared = reader.one_of("child.mode") == "http";
    let url = reader.optional("child.upstream.url", values::url);
    let allow_http = reader.flag("child.upstream.allow_http");
    let connect_timeout = reader.duration("child.upstream.connect_timeout");
    let max_message = usize::try_from(reader.bytes("child.upstream.max_message")).unwrap_or(usize::MAX);
    if max_message < SMALLEST && reader.is_set("child.upstream.max_message") {
        reader.refuse("child.upstream.max_message", "has to be 1KiB at least");
    }
    if connect_timeout.is_zero() && reader.is_set("child.upstream.connect_timeout") {
        reader.refuse("child.upstream.connect_timeout", "has to be longer than nothing");
    }
    let idle: Vec<&str> = KEYS
        .iter()
        .map(|key| key.path)
        .filter(|path| path.starts_with("child.") && !SHARED.contains(path) && path.starts_with(UPSTREAM) != shared)
        .filter(|path| reader.is_set(path))
        .collect();
    for path in idle {
        reader.refuse(
            path,
            if shared {
                "means nothing with child.mode = \"http\": nothing is started"
            } else {
                "means nothing without child.mode = \"http\""
            },
        );
    }
    if !shared {
        return None;
    }
    let Some(url) = url else {
        if !reader.is_set("child.upstream.url") {
            reader.refuse("child.upstream.url", "required with child.mode = \"http\"");
        }
        return None;
    };
    if url.scheme() == "http" && !is_loopback(&url) && !allow_http {
        reader.refuse(
            "child.upstream.url",
            "has to be https, unless its host is a loopback address or child.upstream.allow_http is set: each request carries a \
             user's token",
        );
    }
    Some(Upstream {
        url,
        connect_timeout: connect_timeout.max(Duration::from_millis(1)),
        max_message,
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

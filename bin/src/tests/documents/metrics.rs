//! The list of all metrics in Markdown, read from the output of `/metrics`.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use broker::ports::CompletedRequest;
use http::StatusCode;

use crate::adapters::metrics::{Counts, PREFIX};

/// The whole of `docs/metrics.md`.
pub(super) fn page() -> String {
    let counts = Counts::default();
    // The only series that do not exist from the start: one request shows their labels.
    counts.request_completed(CompletedRequest {
        route: "mcp",
        status: StatusCode::OK,
        duration: Duration::ZERO,
    });
    let text = counts.text().unwrap();
    let mut page = String::from(HEAD);
    for metric in read(&text) {
        let labels: Vec<String> = metric.labels.iter().map(|(name, values)| label(name, values)).collect();
        let labels = labels.join("; ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {labels} | {} |",
            metric.name, metric.kind, metric.help
        );
    }
    page
}

const HEAD: &str = "\
# Metrics

<!-- Generated from bin/src/adapters/metrics/counts.rs by `cargo xtask docs`; a test compares the two. -->

With `metrics.enabled` the broker serves `/metrics` in the text format of [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) 1.0,
which Prometheus reads. With `metrics.token` a request needs this token as a bearer token:

```yaml
scrape_configs:
  - job_name: forgejo-mcp-broker
    authorization: { credentials_file: /etc/prometheus/broker-token }
    static_configs: [{ targets: [\"127.0.0.1:8080\"] }]
```

Without a token everyone who reaches the broker can read the metrics: then the proxy in front must not publish `/metrics`. Unlike for `/healthz`, the
`Host` of the request must be allowed: scrape the name of `public_url`, or add the address to `server.allowed_hosts`. No label holds a user, a session, a client, or any other text of a client.
With `child.mode = \"http\"` a child is the session at the shared server, except in `forgejo_mcp_broker_children`, which counts processes and stays zero.
Counters begin at zero with the process. The average of a histogram is its `_sum` divided by its `_count`.

| metric | kind | labels | meaning |
|---|---|---|---|
";

#[derive(Default)]
struct Metric<'a> {
    name: String,
    kind: &'a str,
    help: &'a str,
    labels: BTreeMap<&'a str, Vec<&'a str>>,
}

/// Takes the text format apart, as far as our own metrics use it: no value of a label holds a quote
/// or a comma.
fn read(text: &str) -> Vec<Metric<'_>> {
    let mut metrics: Vec<Metric<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            metrics.push(Metric {
                name: name.to_owned(),
                help: help.trim_end_matches('.'),
                ..Metric::default()
            });
            continue;
        }
        let Some(metric) = metrics.last_mut() else { continue };
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            metric.kind = rest.rsplit(' ').next().unwrap_or_default();
            match metric.kind {
                "counter" => metric.name.push_str("_total"),
                "info" => metric.name.push_str("_info"),
                _ => {}
            }
        } else if line.starts_with(PREFIX) {
            let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let pairs = labels.into_iter().flat_map(|(labels, _)| labels.split(','));
            for (name, value) in pairs.filter_map(|pair| pair.split_once('=')) {
                let values = metric.labels.entry(name).or_default();
                let value = value.trim_matches('"');
                if name != "le" && !values.contains(&value) {
                    values.push(value);
                }
            }
            metric.labels.remove("le");
        }
    }
    metrics
}

/// A label, with its values if they are a list and not an example.
fn label(name: &str, values: &[&str]) -> String {
    let mut values: Vec<&str> = values.to_vec();
    values.sort_unstable();
    match values.len() {
        0 | 1 => format!("`{name}`"),
        _ => format!("`{name}`: {}", values.join(", ")),
    }
}

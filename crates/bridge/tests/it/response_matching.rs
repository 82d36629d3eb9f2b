//! Random concurrent exchanges over one pipe: each request gets its own response, byte for byte.

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use crate::harness::{bridge_with, start_post};

/// Ids that look alike and are all different.
fn raw_id(n: usize) -> String {
    match n % 4 {
        0 => format!("{n}"),
        1 => format!("\"{}\"", n - 1),
        2 => format!("{n}.5"),
        _ => format!("\"\\u0000{n}\""),
    }
}

async fn exchange(count: usize, order: Vec<usize>, pipe: usize) {
    let (bridge, mut server) = bridge_with(bridge::Config::default(), pipe).await;
    let bridge = Arc::clone(&bridge);
    let replies: Vec<_> = (0..count)
        .map(|n| {
            let id = raw_id(n);
            start_post(
                &bridge,
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":{{"n":{n}}}}}"#),
            )
        })
        .collect();
    let mut numbers = HashMap::new();
    for _ in 0..count {
        let (number, line) = server.request().await;
        let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            numbers.insert(message["params"]["n"].as_u64().expect("a number"), number),
            None
        );
    }
    for n in order {
        let number = numbers[&(n as u64)];
        // A response may contain text like the id of another request.
        server
            .result(number, &format!(r#"{{ "n":{n},"id":{}, "f":1.0e2}}"#, raw_id(n + 1)))
            .await;
    }
    for (n, reply) in replies.into_iter().enumerate() {
        let expected = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{ "n":{n},"id":{}, "f":1.0e2}}}}"#,
            raw_id(n),
            raw_id(n + 1)
        );
        assert_eq!(reply.await.expect("no panic").json().await, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_response_reaches_its_own_request(
        order in (1usize..40).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()),
        pipe in prop_oneof![Just(64usize), Just(1000), Just(1 << 16)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(exchange(order.len(), order, pipe));
    }
}

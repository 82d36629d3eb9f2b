//! Tools that break the protocol, or stretch it. They are among the [test tools](super::test_tools)
//! and give their answers themselves.
//!
//! | tool | effect |
//! |---|---|
//! | `test_ask {id, question, twice}` | sends `elicitation/create` with this id, with `twice` two of them at once; answers with the process id and the client's answers in the order of arrival |
//! | `test_answer {as}` | answers with a line that is no valid answer: `nan`, `latin-1`, `glued`, `neither`, `string-id` |
//! | `test_stray_progress {token}` | sends progress under this token, answers, and then sends progress under the token of its request |
//! | `test_task {ttl}` | answers with a task that works for ever and lives for that many milliseconds |

use serde_json::{Value, json};

use super::{
    CallContext, catalog,
    protocol::{self, Request},
};

/// The answers of `test_answer`, with `{id}` for the id of the request.
const ANSWERS: [(&str, &[u8]); 5] = [
    (
        "nan",
        br#"{"jsonrpc":"2.0","id":{id},"result":{"content":[],"score":NaN}}"#,
    ),
    (
        "latin-1",
        b"{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{\"content\":[],\"name\":\"Andr\xe9\"}}",
    ),
    (
        "glued",
        br#"warning: old{"jsonrpc":"2.0","id":{id},"result":{"content":[]}}"#,
    ),
    ("neither", br#"{"jsonrpc":"2.0","id":{id}}"#),
    ("string-id", br#"{"jsonrpc":"2.0","id":"{id}","result":{"content":[]}}"#),
];

pub(super) fn listed() -> Vec<Value> {
    let [number, text, flag] = ["number", "string", "boolean"].map(|kind| json!({ "type": kind }));
    let question = json!({ "id": {}, "question": text, "twice": flag });
    [
        ("test_ask", "Asks the user", question, "id question"),
        ("test_answer", "Answers badly", json!({ "as": text }), "as"),
        (
            "test_stray_progress",
            "Misplaced progress",
            json!({ "token": text }),
            "token",
        ),
        ("test_task", "Begins a task", json!({ "ttl": number }), "ttl"),
    ]
    .map(|(name, description, properties, required)| {
        let required: Vec<&str> = required.split_whitespace().collect();
        catalog::tool(name, description, &properties, &required)
    })
    .to_vec()
}

/// Runs a tool and gives its answer; `false` if there is none of that name.
pub(super) async fn call(context: &CallContext, Request { id, params, .. }: &Request) -> bool {
    let arguments = &params["arguments"];
    match params["name"].as_str().unwrap_or_default() {
        "test_ask" => {
            let answers = ask(context, arguments).await;
            let text = json!({ "pid": std::process::id(), "answers": answers });
            context.answer(id, Ok(protocol::text(text.to_string()))).await;
        }
        "test_answer" => {
            let wanted = arguments["as"].as_str().unwrap_or_default();
            if let Some((_, line)) = ANSWERS.iter().find(|(name, _)| *name == wanted) {
                context.send(with_id(line, id)).await;
            }
        }
        "test_stray_progress" => {
            context.send(progress(&arguments["token"])).await;
            context.answer(id, Ok(protocol::text("done"))).await;
            context.send(progress(&params["_meta"]["progressToken"])).await;
        }
        "test_task" => {
            let task = json!({
                "taskId": format!("task-{}", std::process::id()), "status": "working", "ttl": arguments["ttl"],
                "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z",
            });
            context.answer(id, Ok(json!({ "task": task }))).await;
        }
        _ => return false,
    }
    true
}

/// Asks once or twice, and waits for all answers.
pub(super) async fn ask(context: &CallContext, arguments: &Value) -> Vec<Value> {
    if let Some(answers) = &context.answers {
        return answers.clone();
    }
    let (id, question) = (&arguments["id"], &arguments["question"]);
    let schema = json!({ "type": "object", "properties": { "nonce": { "type": "string" } } });
    let params = json!({ "message": question, "requestedSchema": schema });
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params });
    let times = if arguments["twice"] == json!(true) { 2 } else { 1 };
    // Before the first question is sent, since its answer may come at once.
    let waiting: Vec<_> = (0..times).map(|_| context.inbox.answer_to(id)).collect();
    // One write, so that no answer comes between two questions.
    let requests = vec![request.to_string(); times];
    context.send(requests.join("\n")).await;
    let mut answers = Vec::new();
    for answer in waiting {
        answers.extend(answer.await.ok());
    }
    answers
}

fn progress(token: &Value) -> String {
    protocol::notification(
        "notifications/progress",
        &json!({ "progressToken": token, "progress": 1 }),
    )
}

fn with_id(line: &[u8], id: &Value) -> Vec<u8> {
    const PLACE: &[u8] = b"{id}";
    let place = line.windows(PLACE.len()).position(|bytes| bytes == PLACE);
    let (before, after) = line.split_at(place.expect("each answer has an id"));
    [before, id.to_string().as_bytes(), &after[PLACE.len()..]].concat()
}

//! The tools of the suite that ask the client in the middle of a call.
//!
//! The tools of 2026-07-28 ask whatever the client declared: a bridge has to answer in its place.

use futures_util::future::try_join3;
use serde_json::{Value, json};

use super::{Failure, call::Call};

/// Runs a tool; `None` if there is none of that name here.
pub(super) async fn run(call: &Call, name: &str) -> Option<Result<String, Failure>> {
    Some(match name {
        "test_sampling" => sampling(call).await,
        "test_elicitation" => elicitation(call).await,
        "test_elicitation_sep1034_defaults" => review(call, "Please review the defaults", schema_with_defaults()).await,
        "test_elicitation_sep1330_enums" => review(call, "Please choose", schema_with_choices()).await,
        "roots" => match call.require("roots") {
            Ok(()) => call.roots("").await,
            Err(failure) => Err(failure),
        },
        "test_missing_capability" => call.sample("", "Is anyone there?").await,
        "test_streaming_elicitation" | "test_input_required_result_elicitation" => greet(call).await,
        "test_input_required_result_sampling" => {
            call.sample("capital_question", "What is the capital of France?").await
        }
        "test_input_required_result_list_roots" => call.roots("client_roots").await,
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            let schema = object("ok", "boolean");
            let answer = call.elicit("confirm", "Please confirm", schema).await;
            answer.map(|answer| format!("state-ok: {}", answer["action"]))
        }
        "test_input_required_result_multiple_inputs" => {
            let greeting = call.sample("greeting", "Generate a greeting");
            let answers = try_join3(ask_name(call), greeting, call.roots("client_roots")).await;
            answers.map(|(name, greeting, roots)| format!("{greeting} {name} {roots}"))
        }
        "test_input_required_result_multi_round" => two_rounds(call).await,
        "test_input_required_result_capabilities" => {
            let answer = call.elicit("", "Who are you?", object("name", "string")).await;
            match answer {
                Ok(answer) => Ok(answer["content"]["name"].to_string()),
                Err(_) => call.sample("", "Invent a name").await,
            }
        }
        _ => return None,
    })
}

/// Asks for the user's name.
pub(super) async fn ask_name(call: &Call) -> Result<String, Failure> {
    let schema = object("name", "string");
    let answer = call.elicit("user_name", "What is your name?", schema).await?;
    text_of(&answer, "name")
}

/// Asks whether to do something.
pub(super) async fn confirm(call: &Call, message: &str) -> Result<bool, Failure> {
    let answer = call.elicit("", message, object("confirm", "boolean")).await?;
    Ok(answer["content"]["confirm"] == json!(true))
}

async fn greet(call: &Call) -> Result<String, Failure> {
    let name = ask_name(call).await?;
    Ok(format!("Hello, {name}!"))
}

async fn two_rounds(call: &Call) -> Result<String, Failure> {
    let schema = object("name", "string");
    let name = call.elicit("step1", "Step 1: What is your name?", schema).await?;
    let schema = object("color", "string");
    let color = call.elicit("step2", "Step 2: What is your favorite color?", schema);
    let (name, color) = (text_of(&name, "name")?, text_of(&color.await?, "color")?);
    Ok(format!("{name} likes {color}"))
}

async fn sampling(call: &Call) -> Result<String, Failure> {
    call.require("sampling")?;
    let text = call.sample("", call.argument("prompt")?).await?;
    Ok(format!("LLM response: {text}"))
}

async fn elicitation(call: &Call) -> Result<String, Failure> {
    call.require("elicitation")?;
    let schema = json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" },
        },
        "required": ["username", "email"],
    });
    let answer = call.elicit("", call.argument("message")?, schema).await?;
    Ok(format!("User response: {}", describe(&answer)))
}

async fn review(call: &Call, message: &str, schema: Value) -> Result<String, Failure> {
    call.require("elicitation")?;
    let answer = call.elicit("", message, schema).await?;
    Ok(format!("Elicitation completed: {}", describe(&answer)))
}

/// A field of the answer to an elicitation.
fn text_of(answer: &Value, field: &str) -> Result<String, Failure> {
    let text = answer["content"][field].as_str();
    text.map(str::to_owned)
        .ok_or_else(|| Failure::Tool(format!("the user gave no {field}: {}", describe(answer))))
}

fn describe(answer: &Value) -> String {
    let action = answer["action"].as_str().unwrap_or("none");
    format!("action={action}, content={}", answer["content"])
}

/// The schema of an object with one field.
fn object(field: &str, kind: &str) -> Value {
    json!({ "type": "object", "properties": { field: { "type": kind } }, "required": [field] })
}

/// A default for every kind of field (SEP-1034).
fn schema_with_defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User age", "default": 30 },
            "score": { "type": "number", "description": "User score", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "description": "Verification status", "default": true },
        },
        "required": [],
    })
}

/// Every kind of choice (SEP-1330).
fn schema_with_choices() -> Value {
    let titled = |titles: [&str; 3]| -> Vec<Value> {
        let titles = titles.iter().zip(1..);
        let choices = titles.map(|(title, number)| json!({ "const": format!("value{number}"), "title": title }));
        choices.collect()
    };
    let options = ["option1", "option2", "option3"];
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": options },
            "titledSingle": {
                "type": "string",
                "oneOf": titled(["First Option", "Second Option", "Third Option"]),
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
            "titledMulti": {
                "type": "array",
                "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
            },
        },
        "required": [],
    })
}

//! The prompts of the suite, and the completion of their arguments.

use serde_json::{Value, json};

use super::{Failure, Outcome, PIXEL, call::Call};

/// The words that an argument may be completed to.
const WORDS: [&str; 4] = ["paris", "park", "party", "test"];

const PROMPTS: [(&str, &[&str]); 5] = [
    ("test_simple_prompt", &[]),
    ("test_prompt_with_arguments", &["arg1", "arg2"]),
    ("test_prompt_with_embedded_resource", &["resourceUri"]),
    ("test_prompt_with_image", &[]),
    ("test_input_required_result_prompt", &[]),
];

pub(super) fn list() -> Vec<Value> {
    let argument = |name: &&str| json!({ "name": name, "description": "An argument", "required": true });
    let prompt = |(name, arguments): (&str, &[&str])| {
        let arguments: Vec<Value> = arguments.iter().map(argument).collect();
        json!({ "name": name, "description": "A prompt for tests", "arguments": arguments })
    };
    PROMPTS.into_iter().map(prompt).collect()
}

pub(super) async fn get(call: &Call) -> Outcome {
    let name = call.params["name"].as_str().unwrap_or_default();
    let messages = match name {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (arg1, arg2) = (call.argument("arg1")?, call.argument("arg2")?);
            vec![text(&format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": call.argument("resourceUri")?,
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            let resource = json!({ "type": "resource", "resource": resource });
            vec![user(&resource), text("Please process the embedded resource above.")]
        }
        "test_prompt_with_image" => {
            let image = json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" });
            vec![user(&image), text("Please analyze the image above.")]
        }
        "test_input_required_result_prompt" => {
            let schema = json!({
                "type": "object",
                "properties": { "context": { "type": "string" } },
                "required": ["context"],
            });
            let question = "What context should the prompt use?";
            let answer = call.elicit("user_context", question, schema).await;
            let answer = answer.map_err(|_| Failure::params("the prompt needs an answer of the user"))?;
            vec![text(&format!("Use this context: {}", answer["content"]["context"]))]
        }
        _ => return Err(Failure::params(format!("no prompt {name:?}"))),
    };
    Ok(json!({ "description": "A prompt for tests", "messages": messages }))
}

/// The completions of an argument's beginning.
pub(super) fn complete(params: &Value) -> Value {
    let beginning = params["argument"]["value"].as_str().unwrap_or_default();
    let values = WORDS.into_iter().filter(|word| word.starts_with(beginning));
    let values: Vec<&str> = values.collect();
    json!({ "completion": { "values": values, "total": values.len(), "hasMore": false } })
}

fn text(text: &str) -> Value {
    user(&json!({ "type": "text", "text": text }))
}

fn user(content: &Value) -> Value {
    json!({ "role": "user", "content": content })
}

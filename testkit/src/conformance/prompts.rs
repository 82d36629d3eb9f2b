//! The prompts that the suite asks for, and the completion of their arguments.

use serde_json::{Value, json};

use super::{
    content,
    wire::{Failure, Outcome},
};

/// What an argument may be completed to.
const WORDS: [&str; 4] = ["paris", "park", "party", "test"];

pub(super) fn list() -> Value {
    let argument = |name: &str| json!({ "name": name, "description": "For tests", "required": true });
    let prompt = |name: &str, arguments: Vec<Value>| json!({ "name": name, "description": "A prompt for tests", "arguments": arguments });
    json!({ "prompts": [
        prompt("test_simple_prompt", vec![]),
        prompt("test_prompt_with_arguments", vec![argument("arg1"), argument("arg2")]),
        prompt("test_prompt_with_embedded_resource", vec![argument("resourceUri")]),
        prompt("test_prompt_with_image", vec![]),
    ] })
}

pub(super) fn get(params: &Value) -> Outcome {
    let name = params["name"].as_str().unwrap_or_default();
    let argument = |name: &str| {
        let given = params["arguments"][name].as_str();
        given.ok_or_else(|| Failure::invalid(format!("the argument {name:?} is missing")))
    };
    let contents = match name {
        "test_simple_prompt" => vec![content::text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1")?, argument("arg2")?);
            vec![content::text(format!(
                "Prompt with arguments: arg1='{first}', arg2='{second}'"
            ))]
        }
        "test_prompt_with_embedded_resource" => vec![
            content::resource(
                argument("resourceUri")?,
                "text/plain",
                "Embedded resource content for testing.",
            ),
            content::text("Please process the embedded resource above."),
        ],
        "test_prompt_with_image" => vec![content::image(), content::text("Please analyze the image above.")],
        _ => return Err(Failure::invalid(format!("no prompt {name:?}"))),
    };
    let messages: Vec<Value> = contents
        .into_iter()
        .map(|content| json!({ "role": "user", "content": content }))
        .collect();
    Ok(json!({ "messages": messages }))
}

pub(super) fn complete(params: &Value) -> Value {
    let begun = params["argument"]["value"].as_str().unwrap_or_default();
    let values: Vec<&str> = WORDS.into_iter().filter(|word| word.starts_with(begun)).collect();
    json!({ "completion": { "total": values.len(), "values": values, "hasMore": false } })
}

//! The tools that ask the client: sampling, elicitation, roots.

use serde_json::{Value, json};

use super::{content, peer::Peer};

/// What a tool answers with, or what is wrong.
type Said = Result<Vec<Value>, String>;

/// Lets the client's model answer the prompt.
pub(super) async fn sampling(peer: &Peer, prompt: &str) -> Said {
    let params = json!({
        "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }],
        "maxTokens": 100,
    });
    let result = peer.ask("sampling", "sampling/createMessage", params).await?;
    let text = result["content"]["text"].as_str().unwrap_or("no text");
    Ok(vec![content::text(format!("LLM response: {text}"))])
}

/// Asks the client's user for a name and an address.
pub(super) async fn elicitation(peer: &Peer, message: &str) -> Said {
    let schema = json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" },
        },
        "required": ["username", "email"],
    });
    let (action, content) = elicit(peer, message, schema).await?;
    let said = format!("User response: action={action}, content={content}");
    Ok(vec![content::text(said)])
}

/// Asks with a default for every kind of field (SEP-1034).
pub(super) async fn elicitation_defaults(peer: &Peer) -> Said {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User age", "default": 30 },
            "score": { "type": "number", "description": "User score", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "description": "Verification status", "default": true },
        },
        "required": [],
    });
    elicitation_completed(elicit(peer, "Please review the defaults", schema).await?)
}

/// Asks with every form of choice (SEP-1330).
pub(super) async fn elicitation_enums(peer: &Peer) -> Said {
    let titled = |values: [(&str, &str); 3]| -> Vec<Value> {
        let choices = values.into_iter();
        choices
            .map(|(value, title)| json!({ "const": value, "title": title }))
            .collect()
    };
    let options = ["option1", "option2", "option3"];
    let single = titled([
        ("value1", "First Option"),
        ("value2", "Second Option"),
        ("value3", "Third Option"),
    ]);
    let multi = titled([
        ("value1", "First Choice"),
        ("value2", "Second Choice"),
        ("value3", "Third Choice"),
    ]);
    let schema = json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": options },
            "titledSingle": { "type": "string", "oneOf": single },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
            "titledMulti": { "type": "array", "items": { "anyOf": multi } },
        },
        "required": [],
    });
    elicitation_completed(elicit(peer, "Please choose", schema).await?)
}

/// Asks which roots the client has.
pub(super) async fn roots(peer: &Peer) -> Said {
    let result = peer.ask("roots", "roots/list", json!({})).await?;
    let roots = result["roots"].as_array().into_iter().flatten();
    let uris: Vec<&str> = roots.filter_map(|root| root["uri"].as_str()).collect();
    Ok(vec![content::text(uris.join(" "))])
}

async fn elicit(peer: &Peer, message: &str, schema: Value) -> Result<(String, Value), String> {
    let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    let result = peer.ask("elicitation", "elicitation/create", params).await?;
    let action = result["action"].as_str().unwrap_or("none").to_owned();
    Ok((action, result["content"].clone()))
}

fn elicitation_completed((action, content): (String, Value)) -> Said {
    let said = format!("Elicitation completed: action={action}, content={content}");
    Ok(vec![content::text(said)])
}

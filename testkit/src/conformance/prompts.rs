//! The prompts of the suite, and the completion of their arguments.

use rmcp::{
    ErrorData,
    handler::server::wrapper::Parameters,
    model::{CompleteResult, CompletionInfo, ContentBlock, PromptMessage, ResourceContents, Role},
    prompt, prompt_router,
    schemars::{self, JsonSchema},
};
use serde::Deserialize;

use super::{ConformanceServer, PIXEL};

/// The words that an argument may be completed to.
const WORDS: [&str; 4] = ["paris", "park", "party", "test"];

#[derive(Deserialize, JsonSchema)]
struct TwoArguments {
    arg1: String,
    arg2: String,
}

#[derive(Deserialize, JsonSchema)]
struct ResourceArgument {
    #[serde(rename = "resourceUri")]
    resource_uri: String,
}

#[prompt_router(vis = "pub(super)")]
impl ConformanceServer {
    /// A prompt for tests
    #[prompt]
    async fn test_simple_prompt(&self) -> Vec<PromptMessage> {
        vec![text("This is a simple prompt for testing.")]
    }

    /// A prompt for tests
    #[prompt]
    async fn test_prompt_with_arguments(&self, Parameters(arguments): Parameters<TwoArguments>) -> Vec<PromptMessage> {
        let TwoArguments { arg1, arg2 } = arguments;
        vec![text(format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]
    }

    /// A prompt for tests
    #[prompt]
    async fn test_prompt_with_embedded_resource(
        &self,
        Parameters(argument): Parameters<ResourceArgument>,
    ) -> Vec<PromptMessage> {
        let resource = ResourceContents::text("Embedded resource content for testing.", argument.resource_uri);
        let resource = ContentBlock::resource(resource.with_mime_type("text/plain"));
        vec![
            PromptMessage::new(Role::User, resource),
            text("Please process the embedded resource above."),
        ]
    }

    /// A prompt for tests
    #[prompt]
    async fn test_prompt_with_image(&self) -> Vec<PromptMessage> {
        vec![
            PromptMessage::new(Role::User, ContentBlock::image(PIXEL, "image/png")),
            text("Please analyze the image above."),
        ]
    }
}

/// The completions of an argument's beginning.
pub(super) fn complete(beginning: &str) -> Result<CompleteResult, ErrorData> {
    let values = WORDS.into_iter().filter(|word| word.starts_with(beginning));
    let completion = CompletionInfo::with_all_values(values.map(str::to_owned).collect());
    let completion = completion.map_err(|error| ErrorData::internal_error(error, None))?;
    Ok(CompleteResult::new(completion))
}

fn text(text: impl Into<String>) -> PromptMessage {
    PromptMessage::new_text(Role::User, text)
}

//! The examples run and print what they promise.

#[path = "../../examples/in_process.rs"]
mod in_process;
#[path = "../../examples/shared_upstream.rs"]
mod shared_upstream;

#[tokio::test]
async fn axum_service_embeds_the_registry_with_its_own_authentication() {
    let answers = in_process::demonstrate().await.expect("answers");
    assert!(answers[0].contains("ann has counted to 1"), "{answers:?}");
    assert!(
        answers[1].contains("ann has counted to 2"),
        "the session was dormant in between: {answers:?}"
    );
    assert_eq!(answers[2..], ["403 Forbidden", "401 Unauthorized"]);
}

#[tokio::test]
async fn shared_upstream_gets_each_request_with_the_token_of_its_user() {
    let answers = shared_upstream::demonstrate().await.expect("answers");
    // The first token of each user went with `initialize`.
    for (answer, token) in answers.iter().zip(["ann-1", "ann-2", "bob-1", "bob-2"]) {
        assert!(
            answer.contains(&format!("Bearer {token}")) && answer.contains("of-the-upstream"),
            "{answer}"
        );
    }
    assert_eq!(answers.len(), 4);
}

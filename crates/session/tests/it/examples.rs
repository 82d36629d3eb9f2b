//! The examples do what they say.

#[path = "../../examples/in_process.rs"]
mod in_process;
#[path = "../../examples/shared_upstream.rs"]
mod shared_upstream;

#[tokio::test]
async fn an_axum_service_mounts_the_registry_with_its_own_authentication() {
    let said = in_process::demonstrate().await.expect("it serves");
    assert!(said[0].contains("ann has counted to 1"), "{said:?}");
    assert!(
        said[1].contains("ann has counted to 2"),
        "the session slept in between: {said:?}"
    );
    assert_eq!(said[2..], ["403 Forbidden", "401 Unauthorized"]);
}

#[tokio::test]
async fn a_shared_upstream_gets_each_request_with_the_token_of_its_own_user() {
    let said = shared_upstream::demonstrate().await.expect("it serves");
    // The first token of each went with `initialize`.
    for (line, token) in said.iter().zip(["ann-1", "ann-2", "bob-1", "bob-2"]) {
        assert!(
            line.contains(&format!("Bearer {token}")) && line.contains("of-the-upstream"),
            "{line}"
        );
    }
    assert_eq!(said.len(), 4);
}

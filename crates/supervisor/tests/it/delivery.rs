//! Delivery of secrets to a child.

use std::fs;

use supervisor::{ChildSpec, Config, Delivery, Supervisor, SupervisorError};

use crate::support::{ChildLines, can_lease_users, done, script, supervisor_with};

const SECRET: &str = "s3cr3t-t0k3n";

fn order_with_token(text: &str) -> ChildSpec {
    let mut spec = script(text);
    spec.env = vec![("TOKEN".into(), SECRET.into())];
    spec.secrets = vec![SECRET.into()];
    spec
}

fn by(delivery: Delivery) -> Supervisor {
    supervisor_with(|config| config.delivery = [("TOKEN".to_owned(), delivery)].into())
}

/// Returns true if the secret is in the arguments, which everyone can read, or in the environment.
fn is_visible(pid: u32) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        let content = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        String::from_utf8_lossy(&content).contains(SECRET)
    })
}

#[tokio::test]
async fn environment_delivery_sets_the_variable_to_the_secret() {
    let supervisor = by(Delivery::Environment);
    let child = supervisor.spawn(order_with_token("echo $TOKEN; cat")).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_line().await.as_deref(), Some(SECRET));
    let arguments = fs::read(format!("/proc/{}/cmdline", child.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(SECRET));
}

#[tokio::test]
async fn file_delivery_writes_a_private_file_that_is_removed_with_the_child() {
    let supervisor = by(Delivery::File);
    let text = "echo $TOKEN; stat -c %a $TOKEN; cat $TOKEN; echo; cat";
    let child = supervisor.spawn(order_with_token(text)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let path = stdio.read_line().await.unwrap();
    assert_eq!(stdio.read_line().await.as_deref(), Some("600"));
    assert_eq!(stdio.read_line().await.as_deref(), Some(SECRET));
    assert!(!is_visible(child.pid()));
    drop(stdio);
    done(&child).await;
    assert!(!fs::exists(path).unwrap());
}

#[tokio::test]
async fn file_delivery_gives_the_file_to_the_private_user_of_the_child() {
    if !can_lease_users() {
        return;
    }
    let parent = tempfile::Builder::new()
        .permissions(permissions(0o711))
        .tempdir()
        .unwrap();
    let supervisor = supervisor_with(|config| {
        config.delivery = [("TOKEN".to_owned(), Delivery::File)].into();
        config.isolation.users = supervisor::ChildUsers::Range(3_100_000..=3_100_000);
        config.isolation.directory = Some(parent.path().into());
    });
    let child = supervisor
        .spawn(order_with_token("stat -c %u:%a $TOKEN; cat $TOKEN; echo"))
        .await
        .unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["3100000:600", SECRET]);
}

fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

#[tokio::test]
async fn descriptor_delivery_returns_the_secret_once() {
    let supervisor = by(Delivery::Descriptor);
    let text = "cat /dev/fd/$TOKEN; echo; cat /dev/fd/$TOKEN; echo end; cat";
    let child = supervisor.spawn(order_with_token(text)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some(SECRET));
    assert_eq!(stdio.read_line().await.as_deref(), Some("end"));
    assert!(!is_visible(child.pid()));
}

#[tokio::test]
async fn secret_that_no_pipe_can_hold_is_rejected() {
    let supervisor = by(Delivery::Descriptor);
    let mut spec = script("cat");
    spec.env = vec![("TOKEN".into(), "x".repeat(4 << 20).into())];
    let error = supervisor.spawn(spec).await.unwrap_err();
    assert!(matches!(error, supervisor::SpawnError::Invalid(_)), "{error:?}");
}

#[test]
fn file_delivery_needs_a_directory() {
    let mut config = Config::new([]);
    config.isolation.own_directory = false;
    config.delivery = [("TOKEN".to_owned(), Delivery::File)].into();
    assert!(matches!(Supervisor::new(config), Err(SupervisorError::Config(_))));
}

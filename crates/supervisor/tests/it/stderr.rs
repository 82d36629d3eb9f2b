//! The standard error of real children.

use crate::support::{ChildLines, done, script, supervisor};

#[tokio::test]
async fn secret_split_over_two_writes_is_redacted() {
    let text = "printf '\\033[31mbad s3cr' >&2; echo half; read go; printf '3t\\033[0m refused\\n' >&2";
    let mut spec = script(text);
    spec.secrets = vec!["s3cr3t".into()];
    let supervisor = supervisor();
    let child = supervisor.spawn(spec).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some("half"));
    stdio.write_line("go").await.unwrap();
    done(&child).await;
    assert_eq!(child.last_stderr(), ["bad [redacted] refused"]);
}

#[tokio::test]
async fn child_that_floods_stderr_is_never_blocked() {
    let text = "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo; echo flooded; echo last >&2";
    let supervisor = supervisor();
    let child = supervisor.spawn(script(text)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some(""));
    assert_eq!(stdio.read_line().await.as_deref(), Some("flooded"));
    done(&child).await;
    let lines = child.last_stderr();
    // The flood is one endless line, of which the beginning is kept.
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].len(), 4096 + " [cut]".len());
}

#[tokio::test]
async fn last_stderr_is_complete_when_done_fires() {
    let supervisor = supervisor();
    for _ in 0..20 {
        let child = supervisor
            .spawn(script("echo 'cannot reach Forgejo' >&2; exit 1"))
            .await
            .unwrap();
        done(&child).await;
        assert_eq!(child.last_stderr(), ["cannot reach Forgejo"]);
    }
}

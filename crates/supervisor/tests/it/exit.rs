//! Exits of children without a call of `stop`.

use std::time::Duration;

use supervisor::Exit;
use tokio::io::AsyncReadExt;

use crate::support::{ChildLines, ProcessWatch, done, script, soon, spec, supervisor};

#[tokio::test]
async fn exit_code_is_reported() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("exit 7")).await.unwrap();
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!(
        exit,
        Exit {
            code: Some(7),
            signal: None,
            lived: exit.lived,
            requested: false
        }
    );
    assert!(exit.lived < Duration::from_secs(10));
}

#[tokio::test]
async fn signal_is_reported() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("kill -KILL $$")).await.unwrap();
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.signal, exit.requested), (None, Some(9), false));
}

#[tokio::test]
async fn exit_is_none_while_the_child_lives() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    assert!(child.exit().is_none());
    assert!(!child.done().is_cancelled());
}

#[tokio::test]
async fn output_before_the_exit_is_readable_after_it() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("echo first; echo last; echo why >&2; exit 1"))
        .await
        .unwrap();
    done(&child).await;
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some("first"));
    assert_eq!(stdio.read_line().await.as_deref(), Some("last"));
    assert_eq!(stdio.read_line().await, None);
    assert_eq!(child.last_stderr(), ["why"]);
}

#[tokio::test]
async fn child_that_exits_by_itself_takes_its_group_along() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("sleep 1000 & echo $!; read go")).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let grandchild = ProcessWatch::on(stdio.read_number().await);
    assert!(!grandchild.is_dead());
    stdio.write_line("go").await.unwrap();
    done(&child).await;
    assert!(grandchild.is_dead());
    assert_eq!(child.exit().unwrap().code, Some(0));
}

#[tokio::test]
async fn closing_stdin_lets_a_child_exit_by_itself() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    drop(child.take_io());
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.requested), (Some(0), false));
}

#[tokio::test]
async fn dropped_handle_ends_the_child() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("sleep", &["1000"])).await.unwrap();
    let (done, process) = (child.done(), ProcessWatch::on(child.pid()));
    drop(child);
    soon("the child to be done", done.cancelled()).await;
    assert!(process.is_dead());
}

#[tokio::test]
async fn dropped_supervisor_ends_its_children() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("sleep", &["1000"])).await.unwrap();
    drop(supervisor);
    done(&child).await;
    assert!(child.exit().unwrap().requested);
}

#[tokio::test]
async fn dropped_spawn_leaves_no_child() {
    let supervisor = supervisor();
    {
        let mut spawn = std::pin::pin!(supervisor.spawn(spec("sleep", &["1000"])));
        // One poll starts the task that spawns; then the caller drops the future.
        tokio::select! { biased; _ = &mut spawn => {} () = async {} => {} }
    }
    assert_eq!(supervisor.live(), 1);
    soon("the child to be gone", async {
        while supervisor.live() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn shutdown_of_the_runtime_ends_its_children() {
    let supervisor = supervisor();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let child = runtime
        .block_on(supervisor.spawn(script("trap '' TERM; echo; read go")))
        .unwrap();
    let mut io = child.take_io().unwrap();
    runtime.block_on(async { io.read_u8().await.unwrap() });
    let process = ProcessWatch::on(child.pid());
    drop(runtime);
    assert!(process.is_dead());
    assert!(child.done().is_cancelled(), "no caller waits forever");
}

#[tokio::test]
async fn end_of_the_calling_thread_does_not_end_the_child() {
    let supervisor = std::sync::Arc::new(supervisor());
    let handle = tokio::runtime::Handle::current();
    let caller = {
        let supervisor = std::sync::Arc::clone(&supervisor);
        std::thread::spawn(move || {
            let me = std::fs::read_link("/proc/thread-self").unwrap();
            (
                std::path::Path::new("/proc").join(me),
                handle.block_on(supervisor.spawn(spec("cat", &[]))).unwrap(),
            )
        })
    };
    while !caller.is_finished() {
        tokio::task::yield_now().await;
    }
    let (thread, child) = caller.join().unwrap();
    // The kernel sends death signals before it removes the thread from /proc.
    soon("the thread to be gone", async {
        while thread.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stdio = ChildLines::with(&child);
    for word in ["still", "alive"] {
        stdio.write_line(word).await.unwrap();
        assert_eq!(stdio.read_line().await.as_deref(), Some(word));
    }
}

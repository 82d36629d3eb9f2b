//! How a child ends when nobody calls `stop`.

use std::time::Duration;

use supervisor::Exit;
use tokio::io::AsyncReadExt;

use crate::support::{ChildLines, ProcessWatch, done, script, soon, spec, supervisor};

#[tokio::test]
async fn the_exit_code_is_reported() {
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
async fn the_signal_is_reported() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("kill -KILL $$")).await.unwrap();
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.signal, exit.requested), (None, Some(9), false));
}

#[tokio::test]
async fn there_is_no_exit_while_the_child_lives() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    assert!(child.exit().is_none());
    assert!(!child.done().is_cancelled());
}

#[tokio::test]
async fn what_a_child_wrote_before_it_exited_can_be_read_after_it() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("echo first; echo last; echo why >&2; exit 1"))
        .await
        .unwrap();
    done(&child).await;
    let mut talk = ChildLines::with(&child);
    assert_eq!(talk.read_line().await.as_deref(), Some("first"));
    assert_eq!(talk.read_line().await.as_deref(), Some("last"));
    assert_eq!(talk.read_line().await, None);
    assert_eq!(child.last_stderr(), ["why"]);
}

#[tokio::test]
async fn a_child_that_exits_by_itself_takes_its_group_along() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("sleep 1000 & echo $!; read go")).await.unwrap();
    let mut talk = ChildLines::with(&child);
    let grandchild = ProcessWatch::on(talk.read_number().await);
    assert!(!grandchild.is_dead());
    talk.write_line("go").await.unwrap();
    done(&child).await;
    assert!(grandchild.is_dead());
    assert_eq!(child.exit().unwrap().code, Some(0));
}

#[tokio::test]
async fn closing_its_stdin_lets_a_child_end_by_itself() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    drop(child.take_io());
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.requested), (Some(0), false));
}

#[tokio::test]
async fn a_dropped_handle_ends_the_child() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("sleep", &["1000"])).await.unwrap();
    let (done, eye) = (child.done(), ProcessWatch::on(child.pid()));
    drop(child);
    soon("the child to be done", done.cancelled()).await;
    assert!(eye.is_dead());
}

#[tokio::test]
async fn a_dropped_supervisor_ends_its_children() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("sleep", &["1000"])).await.unwrap();
    drop(supervisor);
    done(&child).await;
    assert!(child.exit().unwrap().requested);
}

#[tokio::test]
async fn a_spawn_that_nobody_waits_for_leaves_no_child() {
    let supervisor = supervisor();
    {
        let mut spawn = std::pin::pin!(supervisor.spawn(spec("sleep", &["1000"])));
        // One poll starts the task that forks; then the caller loses interest.
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
fn the_end_of_the_runtime_ends_its_children() {
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
    let eye = ProcessWatch::on(child.pid());
    drop(runtime);
    assert!(eye.is_dead());
    assert!(child.done().is_cancelled(), "nobody waits for ever");
}

#[tokio::test]
async fn the_end_of_the_thread_that_asked_does_not_end_the_child() {
    let supervisor = std::sync::Arc::new(supervisor());
    let handle = tokio::runtime::Handle::current();
    let asker = {
        let supervisor = std::sync::Arc::clone(&supervisor);
        std::thread::spawn(move || {
            let me = std::fs::read_link("/proc/thread-self").unwrap();
            (
                std::path::Path::new("/proc").join(me),
                handle.block_on(supervisor.spawn(spec("cat", &[]))).unwrap(),
            )
        })
    };
    while !asker.is_finished() {
        tokio::task::yield_now().await;
    }
    let (thread, child) = asker.join().unwrap();
    // The kernel sends death signals before it takes the thread off the list.
    soon("the thread to be gone", async {
        while thread.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut talk = ChildLines::with(&child);
    for word in ["still", "alive"] {
        talk.write_line(word).await.unwrap();
        assert_eq!(talk.read_line().await.as_deref(), Some(word));
    }
}

//! The picture of a core: every task, and what it waits for.

use std::future::pending;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{
    self, Builder, Dump, Handle, OperationDump, Runtime, TaskDump, TaskState, WaitsFor,
};
use quoit::task::{self, yield_now};
use quoit::time::{Instant, sleep, sleep_until};

use crate::support::on_every_driver;

fn named(name: &str) -> task::Builder {
    task::Builder::new().name(name)
}

fn find<'a>(dump: &'a Dump, name: &str) -> &'a TaskDump {
    let mut with_name = dump.tasks.iter().filter(|task| task.name.as_deref() == Some(name));
    let found = with_name.next().unwrap_or_else(|| panic!("no task is called {name}:\n{dump}"));
    assert!(with_name.next().is_none(), "two tasks are called {name}:\n{dump}");
    found
}

fn only_operation(task: &TaskDump) -> &OperationDump {
    match &task.waits_for[..] {
        [WaitsFor::Operation(operation)] => operation,
        other => panic!("{task} for {other:?}"),
    }
}

#[test]
fn a_dump_tells_of_each_task_what_it_waits_for() {
    on_every_driver(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let reader = named("reader").spawn(async move { server.recv().await.map(drop) });
        let acceptor = named("acceptor").spawn(async move { listener.accept().await.map(drop) });
        let due = Instant::now() + Duration::from_secs(60);
        let sleeper = named("sleeper").spawn(sleep_until(due));
        let stuck = named("stuck").spawn(pending::<()>());
        let joiner = named("joiner").spawn(async move { stuck.await.map(drop) });
        let ended = named("ended").spawn(async {});
        yield_now().await;
        let ready = named("ready").spawn(async {});
        let later = Instant::now() + Duration::from_secs(30);
        let call = quoit::call_at(later, || ());

        let dump = runtime::dump();
        assert_eq!((dump.core_index, dump.driver), (0, runtime::driver()));
        assert_eq!(dump.tasks.len(), 8, "{dump}");
        let running: Vec<_> =
            dump.tasks.iter().filter(|task| task.state == TaskState::Running).collect();
        assert!(running.len() == 1 && running[0].name.is_none(), "{dump}");
        let receive = only_operation(find(&dump, "reader"));
        assert!(receive.name.starts_with("IORING_OP_RECV"), "{receive}");
        assert!(receive.fd.is_some() && !receive.is_cancelled, "{receive}");
        assert_eq!((receive.local, receive.peer), (Some(address), Some(peer)));
        let accept = only_operation(find(&dump, "acceptor"));
        assert_eq!((accept.name, accept.local), ("IORING_OP_ACCEPT", Some(address)));
        assert_eq!(accept.peer, None);
        assert_eq!(find(&dump, "sleeper").waits_for, [WaitsFor::Timer(due)]);
        assert_eq!(find(&dump, "stuck").waits_for, []);
        let stuck = find(&dump, "stuck");
        assert_eq!(find(&dump, "joiner").waits_for, [WaitsFor::Task(stuck.id)]);
        assert_eq!(find(&dump, "ended").state, TaskState::Ended);
        assert_eq!(find(&dump, "ready").state, TaskState::Ready);
        for name in ["reader", "acceptor", "sleeper", "stuck", "joiner"] {
            let task = find(&dump, name);
            assert_eq!(task.state, TaskState::Waiting, "{task}");
            assert!(task.spawned_at.file().ends_with("dump.rs") && task.polled_at.is_none());
        }
        assert_eq!(dump.callbacks, [later]);
        assert!(dump.operations.is_empty() && dump.timers.is_empty(), "{dump}");
        let text = dump.to_string();
        for line in [
            format!("for IORING_OP_ACCEPT of descriptor {} ({address})\n", accept.fd.unwrap()),
            format!("    for task {}\n", stuck.id),
            "a function to be called, due in ".to_owned(),
            "the task \"stuck\", spawned at tests/it/dump.rs:".to_owned(),
        ] {
            assert!(text.contains(&line), "{line:?} is missing:\n{text}");
        }

        call.cancel();
        drop(client);
        reader.await.unwrap().unwrap();
        for task in [sleeper, ended, ready] {
            task.abort();
        }
        acceptor.abort();
        joiner.abort();
        yield_now().await;
    });
}

#[test]
fn an_operation_that_nobody_awaits_is_told_of_as_such() {
    on_every_driver(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let aborted = quoit::spawn(async move { client.read(vec![0; 9]).await.map(drop).is_ok() });
        yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        let dump = runtime::dump();
        let mut orphans = dump.operations.iter().filter(|operation| operation.is_cancelled);
        assert!(orphans.next().is_some(), "{dump}");
        assert!(dump.to_string().contains(", being cancelled"), "{dump}");
        drop(server);
        yield_now().await;
    });
}

#[test]
fn another_thread_asks_and_a_core_that_has_ended_refuses() {
    let mut runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    runtime.block_on(async {
        named("sleeper").spawn(sleep(Duration::from_secs(60)));
        let asked = handle.clone();
        let thread = quoit::spawn_blocking(move || asked.dump().unwrap().wait().unwrap());
        let dump = thread.await.unwrap();
        assert_eq!(dump.tasks.len(), 2, "{dump}");
        assert_eq!(find(&dump, "sleeper").state, TaskState::Waiting);
        // The core may ask itself as well.
        let dump = Handle::current().dump().unwrap().await.unwrap();
        assert_eq!(find(&dump, "sleeper").state, TaskState::Waiting);
    });
    // Between two calls of `block_on` it rests.
    let dump = runtime.dump();
    assert!(dump.tasks.len() == 1 && dump.tasks[0].state == TaskState::Waiting, "{dump}");
    let pending = handle.dump().unwrap();
    runtime.shutdown(Duration::from_secs(10));
    assert!(pending.wait().unwrap_err().is_cancelled());
    assert!(handle.dump().is_err());
    assert_eq!(runtime.dump().tasks.len(), 0);
}

#[test]
fn with_a_threshold_a_dump_says_since_when_a_task_waits() {
    let threshold = Duration::from_secs(10);
    Builder::new()
        .stall_threshold(threshold)
        .run(async {
            let before = Instant::now();
            named("sleeper").spawn(sleep(Duration::from_secs(60)));
            yield_now().await;
            let after = Instant::now();
            let dump = runtime::dump();
            let at = find(&dump, "sleeper").polled_at.unwrap();
            assert!(before <= at && at <= after);
            assert!(dump.to_string().contains(" waits, since "), "{dump}");
        })
        .unwrap();
}

#[test]
#[should_panic(expected = "runtime::dump was called outside of a runtime")]
fn there_is_no_dump_outside_of_a_runtime() {
    let _ = runtime::dump();
}

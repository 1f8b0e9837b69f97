//! What must not compile, each with a twin that does.
//!
//! A case is one text with one line left open. The line that is right makes a program that compiles,
//! the line that is wrong one that does not, and the two differ in nothing else; so none is refused for
//! a spelling. They are documentation tests: the compiler's own words, which trybuild would compare,
//! change with each version, and the code of an error does not. rustdoc looks at the code where the
//! features of a nightly compiler are on: `scripts/ci.sh refused`. One error has none.

/// `case! { name, code, before, right, wrong, after }`
macro_rules! case {
    ($name:ident, $code:literal, $before:literal, $right:literal, $wrong:literal, $after:literal) => {
        #[doc = concat!("```no_run\n", $before, "\n", $right, "\n", $after, "\n```\n\n")]
        #[doc = concat!("```compile_fail,", $code, "\n", $before, "\n", $wrong, "\n", $after, "\n```")]
        pub struct $name;
    };
}

// ---- Buffers are owned ----

case! {
    ReadsIntoABorrowedBuffer, "E0277",
    "async fn main_of(stream: quoit::net::TcpStream) { let mut buf = vec![0; 9];",
    "let _ = stream.read(buf).await;",
    "let _ = stream.read(&mut buf).await;",
    "}"
}

case! {
    WritesFromABorrowedVec, "E0277",
    "async fn main_of(stream: quoit::net::TcpStream) { let buf = vec![0; 9];",
    "let _ = stream.write_all(buf).await;",
    "let _ = stream.write_all(&buf).await;",
    "}"
}

case! {
    WritesFromABorrowedSlice, "E0597",
    "fn main_of(stream: quoit::net::TcpStream) { let buf = vec![0; 9];",
    "drop(stream.write_all(buf));",
    "drop(stream.write_all(&buf[..]));",
    "}"
}

case! {
    ReadsAFileIntoABorrowedArray, "E0277",
    "async fn main_of(file: quoit::fs::File) { let mut buf = [0; 9];",
    "let _ = file.read_at(buf, 0).await;",
    "let _ = file.read_at(&mut buf, 0).await;",
    "}"
}

case! {
    ReadsIntoWhatIsShared, "E0277",
    "async fn main_of(file: quoit::fs::File) { let bytes: Vec<u8> = vec![0; 9];",
    "let _ = file.read_at(bytes, 0).await;",
    "let _ = file.read_at(std::rc::Rc::<[u8]>::from(bytes), 0).await;",
    "}"
}

case! {
    ReadsIntoAString, "E0277",
    "async fn main_of(stream: quoit::net::TcpStream) { let text = String::from(\"text\");",
    "let _ = stream.write(text).await;",
    "let _ = stream.read(text).await;",
    "}"
}

case! {
    UsesABufferThatWasGivenAway, "E0382",
    "async fn main_of(stream: quoit::net::TcpStream) { let buf = vec![0; 9];",
    "let buf = stream.write_all(buf).await.unwrap();",
    "let _ = stream.write_all(buf).await.unwrap();",
    "drop(buf); }"
}

case! {
    WritesOneBufferTwiceAtOnce, "E0382",
    "fn main_of(stream: quoit::net::TcpStream) { let buf = vec![0; 9];",
    "let pair = (stream.write_all(buf.clone()), stream.write_all(buf));",
    "let pair = (stream.write_all(buf), stream.write_all(buf));",
    "drop(pair); }"
}

case! {
    ClonesALease, "E0599",
    "fn main_of(lease: quoit::buf::PooledBuf) {",
    "let copy = lease.to_vec();",
    "let copy = lease.clone();",
    "drop((lease, copy)); }"
}

case! {
    CallsABufferOneInSafeCode, "E0200",
    "struct Mine(Vec<u8>);",
    "unsafe impl quoit::buf::IoBuf for Mine {",
    "impl quoit::buf::IoBuf for Mine {",
    "fn buf_ptr(&self) -> *const u8 { self.0.as_ptr() } fn buf_len(&self) -> usize { self.0.len() } }"
}

// ---- What belongs to a core stays there ----

case! {
    SendsAStream, "E0277",
    "fn main_of(stream: quoit::net::TcpStream) {",
    "(move || drop(stream))();",
    "std::thread::spawn(move || drop(stream));",
    "}"
}

case! {
    SendsAListener, "E0277",
    "fn main_of(listener: quoit::net::TcpListener) {",
    "(move || drop(listener))();",
    "std::thread::spawn(move || drop(listener));",
    "}"
}

case! {
    SendsAFile, "E0277",
    "fn main_of(file: quoit::fs::File) {",
    "(move || drop(file))();",
    "std::thread::spawn(move || drop(file));",
    "}"
}

case! {
    SendsALease, "E0277",
    "fn main_of(lease: quoit::buf::PooledBuf) {",
    "let sent = lease.to_vec();",
    "let sent = lease;",
    "std::thread::spawn(move || drop(sent)); }"
}

case! {
    SendsARuntime, "E0277",
    "fn main_of(runtime: quoit::runtime::Runtime) {",
    "let sent = runtime.handle();",
    "let sent = runtime;",
    "std::thread::spawn(move || drop(sent)); }"
}

case! {
    SendsACore, "E0277",
    "fn main_of(core: quoit::runtime::Core) {",
    "let sent = core.index();",
    "let sent = core;",
    "std::thread::spawn(move || drop(sent)); }"
}

case! {
    SendsAFutureOfAStream, "E0277",
    "fn main_of(stream: quoit::net::TcpStream) {",
    "let sent = stream.bytes_sent();",
    "let sent = stream.recv();",
    "std::thread::scope(|scope| { scope.spawn(move || drop(sent)); }); }"
}

case! {
    SendsATaskThatAwaitsAStream, "",
    "fn main_of(stream: quoit::net::TcpStream) {",
    "let future = async move { 6 * 7 };",
    "let future = async move { stream.recv().await.is_ok() };",
    "std::thread::spawn(move || drop(future)); }"
}

case! {
    SharesAStream, "E0277",
    "fn main_of(stream: quoit::net::TcpStream) { std::thread::scope(|scope| {",
    "drop(stream.bytes_sent());",
    "scope.spawn(|| stream.bytes_sent());",
    "}); }"
}

case! {
    SendsTheHandleOfAnOutputThatStays, "E0277",
    "fn main_of() {",
    "let task = quoit::spawn(async { 7_u32 });",
    "let task = quoit::spawn(async { std::rc::Rc::new(7_u32) });",
    "std::thread::spawn(move || drop(task)); }"
}

case! {
    SendsTheEndOfAChannel, "E0277",
    "fn main_of() { let (sender, receiver) = quoit::sync::mpsc::channel::<u8>(1);",
    "(move || drop(sender))();",
    "std::thread::spawn(move || drop(sender));",
    "drop(receiver); }"
}

case! {
    SharesALock, "E0277",
    "fn main_of(lock: quoit::sync::Mutex<u8>) { std::thread::scope(|scope| {",
    "drop(lock.try_lock());",
    "scope.spawn(|| drop(lock.try_lock()));",
    "}); }"
}

// ---- Tasks own what they use ----

case! {
    SpawnsAFutureThatBorrows, "E0373",
    "fn main_of() { let text = String::from(\"text\");",
    "drop(quoit::spawn(async move { text.len() }));",
    "drop(quoit::spawn(async { text.len() }));",
    "}"
}

case! {
    SpawnsOnAnotherCoreWithWhatStays, "E0277",
    "fn main_of(core: quoit::runtime::Handle) {",
    "let number = std::sync::Arc::new(7);",
    "let number = std::rc::Rc::new(7);",
    "let _ = core.spawn_on(move || { drop(number); async {} }); }"
}

case! {
    TakesAnOutputThatStaysFromAnotherCore, "E0277",
    "fn main_of(core: quoit::runtime::Handle) {",
    "let _ = core.spawn_on(|| async { std::sync::Arc::new(7) });",
    "let _ = core.spawn_on(|| async { std::rc::Rc::new(7) });",
    "}"
}

case! {
    CallsOnAnotherCoreWithWhatStays, "E0277",
    "fn main_of(core: quoit::runtime::Handle) {",
    "let number = std::sync::Arc::new(7);",
    "let number = std::rc::Rc::new(7);",
    "let _ = core.call_soon(move || drop(number)); }"
}

case! {
    SendsALeaseToAnotherCore, "E0277",
    "fn main_of() {",
    "drop(quoit::mesh::channel::<Vec<u8>>(1));",
    "drop(quoit::mesh::channel::<quoit::buf::PooledBuf>(1));",
    "}"
}

// ---- Kernels ----

case! {
    MakesDriversOfWhatStays, "E0277",
    "fn main_of() {",
    "let kind = std::sync::Arc::new(quoit::driver::DriverKind::Uring);",
    "let kind = std::rc::Rc::new(quoit::driver::DriverKind::Uring);",
    "drop(quoit::runtime::Builder::new().driver_with(move |_| kind.open())); }"
}

case! {
    StartsCoresWithWhatStays, "E0277",
    "fn main_of() {",
    "let number = std::sync::Arc::new(7);",
    "let number = std::rc::Rc::new(7);",
    "let _ = quoit::runtime::start_per_core(async move || { let _ = *number; }); }"
}

case! {
    PromisesAKernelInSafeCode, "E0200",
    "use quoit::driver::*; use std::io; struct Mine;",
    "unsafe impl Driver for Mine {",
    "impl Driver for Mine {",
    "unsafe fn push(&mut self, _: Sqe) {}
    fn enter(&mut self, _: Wait, _: &mut Vec<Cqe>) -> io::Result<()> { Ok(()) }
    fn call(&mut self, _: Call<'_>) -> io::Result<i32> { Ok(0) }
    unsafe fn register(&mut self, _: Register) -> io::Result<()> { Ok(()) }
    fn supports(&self, _: u8) -> bool { true }
    fn unparker(&self) -> Unparker { nobody() }
    fn now(&self) -> u64 { 0 }
    fn counters(&self) -> Counters { Counters::default() }
    fn name(&self) -> &'static str { \"mine\" } }
    fn nobody() -> Unparker { std::process::abort() }"
}

// ---- The attributes ----

case! {
    MarksAFunctionThatIsNotAsync, "",
    "",
    "#[quoit::main] async fn main() {}",
    "#[quoit::main] fn main() {}",
    ""
}

case! {
    MarksWhatIsNoFunction, "",
    "fn main() {}",
    "#[quoit::test] async fn a_test() {}",
    "#[quoit::test] struct Test;",
    ""
}

case! {
    GivesATestAParameter, "",
    "fn main() {}",
    "#[quoit::test] async fn a_test() {}",
    "#[quoit::test] async fn a_test(core: quoit::runtime::Core) {}",
    ""
}

case! {
    GivesTheMainOfOneCoreAParameter, "",
    "use quoit::runtime::Core;",
    "#[quoit::main(cores = 1)] async fn main(_: Core) {}",
    "#[quoit::main] async fn main(_: Core) {}",
    ""
}

case! {
    AsksForNoCore, "",
    "",
    "#[quoit::main(cores = 1)] async fn main() {}",
    "#[quoit::main(cores = 0)] async fn main() {}",
    ""
}

case! {
    AsksForCoresTwice, "",
    "",
    "#[quoit::main(cores = 1)] async fn main() {}",
    "#[quoit::main(cores = 1, per_core)] async fn main() {}",
    ""
}

case! {
    AsksForADriverThatIsNone, "",
    "",
    "#[quoit::main(driver = \"epoll\")] async fn main() {}",
    "#[quoit::main(driver = \"kqueue\")] async fn main() {}",
    ""
}

case! {
    AsksForSomethingUnknown, "",
    "",
    "#[quoit::main(per_core)] async fn main() {}",
    "#[quoit::main(worker_threads = 4)] async fn main() {}",
    ""
}

case! {
    PausesAMain, "",
    "fn main() {}",
    "#[quoit::test(paused = true)] async fn other() {}",
    "#[quoit::main(paused = true)] async fn other() {}",
    ""
}

case! {
    PausesTheMachine, "",
    "fn main() {}",
    "#[quoit::test(paused = true, driver = \"sim\")] async fn a_test() {}",
    "#[quoit::test(paused = true, driver = \"uring\")] async fn a_test() {}",
    ""
}

case! {
    SimulatesSeveralCores, "",
    "fn main() {}",
    "#[quoit::test(driver = \"sim\")] async fn a_test() {}",
    "#[quoit::test(driver = \"sim\", cores = 2)] async fn a_test() {}",
    ""
}

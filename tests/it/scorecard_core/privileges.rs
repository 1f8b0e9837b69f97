//! Rights that a process has given up, after its rings were made.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use quoit::driver::DriverKind;
use quoit::fs::File;
use quoit::process::Command;
use quoit::runtime::{Builder, Runtime};

use crate::loopback::join;
use crate::support::{become_nobody, is_root, isolated, on_io_uring};

const NOBODY: u32 = 65_534;

/// A file and a FIFO that only root may open, in a directory that nobody can clear up afterwards.
fn prepare(directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    let (secret, fifo) = (directory.join("secret"), directory.join("fifo"));
    std::fs::write(&secret, "secret").unwrap();
    let path = std::ffi::CString::new(fifo.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path lives until the call returns.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// What root may do. A thread of the kernel's, or of the driver's, is there afterwards, and has root's
/// rights.
async fn as_root(directory: &Path) -> File {
    let file = File::open(directory.join("secret")).await.unwrap();
    let fifo = directory.join("fifo");
    let partner = fifo.clone();
    let opens = quoit::spawn(File::open(fifo));
    quoit::task::yield_now().await;
    let partner = std::thread::spawn(move || std::fs::OpenOptions::new().write(true).open(partner));
    // io_uring does not wait for a partner, who would wait for ever if this were closed too soon.
    let reader = opens.await.unwrap().unwrap();
    join(partner).await.unwrap();
    drop(reader);
    // It may have to be made, so io_uring never tries it at once: a thread of the kernel's does it.
    let made = File::options().write(true).create(true).open(directory.join("secret")).await;
    made.unwrap().close().await.unwrap();
    // SAFETY: the call takes no pointers.
    assert_eq!(quoit::spawn_blocking(|| unsafe { libc::geteuid() }).await.unwrap(), 0);
    file
}

async fn as_nobody(directory: &Path, file: &File) {
    for path in ["secret", "fifo"] {
        let opened = File::open(directory.join(path)).await;
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied, "{path}");
    }
    // A thread does it, again.
    let created = File::create(directory.join("secret")).await;
    assert_eq!(created.unwrap_err().kind(), ErrorKind::PermissionDenied);
    // What was opened before is open.
    assert_eq!(file.read_exact_at(vec![0; 6], 0).await.unwrap(), b"secret");
    // SAFETY: the call takes no pointers.
    assert_eq!(quoit::spawn_blocking(|| unsafe { libc::geteuid() }).await.unwrap(), NOBODY);
    let user = Command::new("id").arg("-u").output().await.unwrap();
    assert_eq!(String::from_utf8(user.stdout).unwrap().trim(), NOBODY.to_string());
}

#[test]
fn s19_no_operation_runs_with_rights_that_were_given_up_before_it() {
    isolated(|| {
        if !is_root() {
            // There is nothing to give up.
            return;
        }
        let directory = std::env::temp_dir().join(format!("quoit-s19-{}", std::process::id()));
        prepare(&directory);
        let mut kinds =
            vec![("io_uring", on_io_uring()), ("epoll", Builder::new().driver(DriverKind::Epoll))];
        if std::env::var_os("QUOIT_CAPS").is_none() {
            let masks = ["5.10", "5.15", "no-defer-taskrun", "no-single-issuer", "restricted"];
            kinds.extend(masks.map(|mask| (mask, on_io_uring().caps(mask))));
        }
        let mut made: Vec<(&str, Runtime, File)> = Vec::new();
        for (name, builder) in kinds {
            let runtime = builder.build().unwrap();
            let file = runtime.block_on(as_root(&directory));
            made.push((name, runtime, file));
        }
        become_nobody();
        for (name, runtime, file) in made {
            println!("on {name}");
            runtime.block_on(async {
                as_nobody(&directory, &file).await;
                file.close().await.unwrap();
            });
        }
        std::fs::remove_dir_all(directory).unwrap();
    });
}

//! Starts that fail: each is provoked for real where that leaves the machine's settings alone.

use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use quoit::driver::DriverKind;
use quoit::runtime::{self, Builder, Error, ErrorKind};

use crate::support::{isolated, refuse};

fn errno(error: &Error) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

fn limit_descriptors(soft: u64) {
    // SAFETY: the limits live until the calls return.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = soft;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// How many descriptors are open.
fn open_descriptors() -> usize {
    // Less the directory's own, which is closed afterwards.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Opens descriptors until those that are open have all the numbers from 0; the limit is one of
/// numbers, not of how many there are.
fn without_gaps() -> (Vec<File>, u64) {
    let mut fill = Vec::new();
    loop {
        let file = File::open("/dev/null").unwrap();
        let next = u64::from(file.as_raw_fd().unsigned_abs());
        if open_descriptors() as u64 == next + 1 {
            drop(file);
            return (fill, next);
        }
        fill.push(file);
    }
}

fn start_error<T: std::fmt::Debug>(result: runtime::Result<T>) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start, "{error}");
    error
}

/// Starts on io_uring alone: nothing takes its place.
fn run_on_io_uring() -> runtime::Result<()> {
    Builder::new().driver(DriverKind::Uring).run(async {})
}

#[test]
fn a_filter_that_says_eperm_is_named_with_what_mends_it() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::EPERM);
        let error = start_error(run_on_io_uring());
        assert_eq!((errno(&error), error.core()), (Some(libc::EPERM), Some(0)));
        let text = error.to_string();
        for needle in ["core 0 could not start", "io_uring_setup gave EPERM", "seccomp", "Docker"] {
            assert!(text.contains(needle), "`{needle}` is not in: {text}");
        }
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn a_filter_that_says_enosys_is_told_from_a_kernel_without_io_uring() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::ENOSYS);
        let text = start_error(run_on_io_uring()).to_string();
        assert!(text.contains("ENOSYS") && text.contains("seccomp"), "{text}");
    });
}

#[test]
fn a_ring_that_may_be_opened_but_not_registered_with_is_a_start_error_too() {
    isolated(|| {
        refuse(libc::SYS_io_uring_register, libc::EPERM);
        let text = start_error(run_on_io_uring()).to_string();
        assert!(text.contains("IORING_REGISTER_PROBE gave EPERM"), "{text}");
        assert!(text.contains("seccomp"), "{text}");
    });
}

#[test]
fn a_lack_of_memory_is_named_after_the_smallest_ring_was_tried() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::ENOMEM);
        let text = start_error(Builder::new().driver(DriverKind::Uring).run(async {})).to_string();
        assert!(text.contains("ENOMEM") && text.contains("out of memory"), "{text}");
    });
}

#[test]
fn too_many_files_in_the_machine_are_counted() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::ENFILE);
        let text = start_error(Builder::new().driver(DriverKind::Uring).run(async {})).to_string();
        assert!(text.contains("ENFILE") && text.contains("fs.file-max"), "{text}");
    });
}

#[test]
fn a_thread_that_cannot_be_made_is_a_start_error() {
    isolated(|| {
        refuse(libc::SYS_clone3, libc::EAGAIN);
        let error = start_error(runtime::start_per_core(async || {}));
        assert_eq!((errno(&error), error.core()), (Some(libc::EAGAIN), Some(0)));
        let text = error.to_string();
        assert!(text.contains("starting a thread") && text.contains("pids.max"), "{text}");
    });
}

#[test]
fn a_kernel_that_refuses_every_flag_is_a_start_error() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::EINVAL);
        let text = start_error(run_on_io_uring()).to_string();
        assert!(text.contains("EINVAL") && text.contains("plainest ring"), "{text}");
    });
}

#[test]
fn too_few_descriptors_name_the_limit() {
    isolated(|| {
        let (_fill, open) = without_gaps();
        limit_descriptors(open);
        let error = start_error(runtime::run(async {}));
        limit_descriptors(open + 100);
        assert_eq!(errno(&error), Some(libc::EMFILE));
        let text = error.to_string();
        assert!(text.contains(&format!("may have {open} descriptors")), "{text}");
        assert!(text.contains("ulimit -n") || text.contains("LimitNOFILE"), "{text}");
    });
}

#[test]
fn when_one_core_cannot_open_its_ring_none_runs_main() {
    isolated(|| {
        let (_fill, open) = without_gaps();
        // Every number of descriptors from none to enough, so that each step fails once.
        let mut steps = std::collections::BTreeSet::new();
        for more in 0..64 {
            limit_descriptors(open + more);
            let ran = std::sync::Arc::new(std::sync::Mutex::new(0));
            let count = std::sync::Arc::clone(&ran);
            let result = Builder::new().cores(3).start_per_core(async move || {
                *count.lock().unwrap() += 1;
            });
            let ran = *ran.lock().unwrap();
            limit_descriptors(open + 200);
            match result {
                Ok(()) => {
                    assert_eq!(ran, 3);
                    assert!(steps.len() >= 3, "the steps that failed: {steps:?}");
                    return;
                }
                Err(error) => {
                    assert_eq!((error.kind(), ran), (ErrorKind::Start, 0), "{error}");
                    assert_eq!(errno(&error), Some(libc::EMFILE), "{error}");
                    let text = error.to_string();
                    let (before, _) = text.split_once(" gave ").unwrap();
                    steps.insert(before.split_once("start: ").unwrap().1.to_owned());
                }
            }
            assert_eq!(open_descriptors() as u64, open, "a start that failed leaves nothing open");
        }
        panic!("64 descriptors are enough for three cores");
    });
}

#[test]
fn a_cpu_outside_of_the_mask_is_refused_by_name() {
    let error = start_error(Builder::new().cpus([1_000_000]).start_per_core(async || {}));
    assert_eq!(error.core(), None);
    let text = error.to_string();
    assert!(text.contains("may not run on CPU 1000000") && text.contains("taskset"), "{text}");
}

#[test]
fn a_cpu_outside_of_the_cpuset_is_told_from_those_within() {
    isolated(|| {
        // SAFETY: the set is plain bits, zeroed, and lives until the call returns.
        unsafe {
            let mut set = std::mem::zeroed::<libc::cpu_set_t>();
            libc::CPU_SET(0, &mut set);
            if libc::sched_setaffinity(0, size_of_val(&set), &raw const set) != 0 {
                println!("skipped: this process may not run on CPU 0");
                return;
            }
        }
        let error = start_error(Builder::new().cpus([0, 1]).start_per_core(async || {}));
        let text = error.to_string();
        assert!(text.contains("may not run on CPU 1, only on [0]"), "{text}");
        assert!(text.contains("--cpuset-cpus") && text.contains("AllowedCPUs="), "{text}");
        // Left to itself, it takes what there is.
        let ran = std::sync::Arc::new(std::sync::Mutex::new(0));
        let count = std::sync::Arc::clone(&ran);
        runtime::start_per_core(async move || *count.lock().unwrap() += 1).unwrap();
        assert_eq!(*ran.lock().unwrap(), 1);
    });
}

#[test]
fn too_few_addresses_name_the_limit() {
    isolated(|| {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
        // Room for a ring, and not for the table of operations.
        let limit =
            libc::rlimit { rlim_cur: pages * 4096 + (4 << 20), rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit lives until the call returns.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        let error = start_error(runtime::run(async {}));
        assert_eq!(errno(&error), Some(libc::ENOMEM));
        let text = error.to_string();
        assert!(text.contains("ENOMEM") && text.contains("ulimit -v unlimited"), "{text}");
        assert!(text.contains("max_live_ops"), "{text}");
        println!("{text}");
    });
}

#[test]
fn rings_whose_answers_have_less_room_than_their_requests_are_refused() {
    let error = start_error(Builder::new().sq_entries(64).cq_entries(32).run(async {}));
    assert!(error.to_string().contains("cq_entries(32) is less than sq_entries(64)"), "{error}");
}

#[test]
fn an_unknown_capability_is_refused_with_the_known_ones() {
    isolated(|| {
        let says = |error: Error| {
            let text = error.to_string();
            for needle in ["`no-wifi`", "5.10", "6.12", "restricted", "no-pbuf", "no-msg-ring"] {
                assert!(text.contains(needle), "`{needle}` is not in: {text}");
            }
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            let source = source.get_ref().unwrap();
            assert!(source.downcast_ref::<quoit::driver::UnknownCaps>().is_some());
        };
        says(start_error(Builder::new().caps("6.1,no-wifi").run(async {})));
        // SAFETY: the process has no other thread that looks at the environment.
        unsafe { std::env::set_var("QUOIT_CAPS", "no-wifi") };
        says(start_error(runtime::run(async {})));
        assert!(quoit::driver::caps().is_err());
        Builder::new().caps("none").run(async {}).unwrap();
    });
}

#[test]
fn nonsense_is_refused_with_advice() {
    let text = |f: fn() -> Builder| {
        let panic = std::panic::catch_unwind(|| drop(f())).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
    };
    let says = |f, needle: &str| {
        let text = text(f).unwrap();
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    };
    says(|| Builder::new().cores(0), "at least one core");
    says(|| Builder::new().cpus([]), "at least one CPU");
    says(|| Builder::new().cpus([0, 0]), "CPU 0 twice");
    says(|| Builder::new().sq_entries(0), "at least one entry");
    says(|| Builder::new().cq_entries(0), "at least one entry");
    says(|| Builder::new().max_live_ops(0), "from 1 to 4194304");
    says(|| Builder::new().max_live_ops(u32::MAX), "from 1 to 4194304");
    says(|| Builder::new().thread_name("a\0b"), "no zero byte");
    says(|| drop_build(Builder::new().cores(2)), "start_per_core");
    says(|| drop_build(Builder::new().cpus([0, 1])), "start_per_core");
}

fn drop_build(builder: Builder) -> Builder {
    drop(builder.clone().build());
    builder
}

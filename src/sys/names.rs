//! Host names, as the C library finds them: in `/etc/hosts`, by DNS, or wherever the system says.

use std::ffi::{CStr, CString};
use std::io;
use std::net::SocketAddr;
use std::ptr;

use super::addr::Address;

/// Why a name has no addresses.
#[derive(Debug)]
pub(crate) enum Unresolved {
    /// A code of `getaddrinfo`, and the C library's words for it.
    Code(i32, String),
    System(io::Error),
}

/// The addresses of `host`, each once, in the order in which they should be tried (RFC 6724). Their
/// ports are 0. It blocks, for seconds if a server does not answer.
pub(crate) fn look_up(host: &CStr) -> Result<Vec<SocketAddr>, Unresolved> {
    // SAFETY: of all zeros are no pointers and no wishes.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // Otherwise there would be an entry for each kind of socket.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: `host` ends with a zero byte, `hints` is filled in, and `list` is a place for the answer.
    let code =
        unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    match code {
        0 => {}
        libc::EAI_SYSTEM => return Err(Unresolved::System(io::Error::last_os_error())),
        code => return Err(Unresolved::Code(code, words_for(code))),
    }
    let mut found = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with a null pointer, and its entries live until it is freed.
    while let Some(one) = unsafe { entry.as_ref() } {
        // SAFETY: an entry's address has the length that stands beside it.
        let bytes = unsafe {
            std::slice::from_raw_parts(one.ai_addr.cast::<u8>(), one.ai_addrlen as usize)
        };
        if let Ok(address) = Address::of_bytes(bytes)
            && !found.contains(&address)
        {
            found.push(address);
        }
        entry = one.ai_next;
    }
    // SAFETY: the call above made the list, and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn words_for(code: i32) -> String {
    // SAFETY: the answer is a static text.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    text.to_string_lossy().into_owned()
}

/// What the C library says of a code that was not its own answer.
pub(crate) fn unknown() -> Unresolved {
    Unresolved::Code(libc::EAI_NONAME, words_for(libc::EAI_NONAME))
}

/// `host` as the C library wants it, if it can be a name.
pub(crate) fn as_name(host: &str) -> Option<CString> {
    /// RFC 1035, in the form in which it is written.
    const LONGEST: usize = 253;
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.is_empty() || bare.len() > LONGEST || bare.contains([':', '[', ']', '/', '%']) {
        return None;
    }
    // What ends in a number is an address that somebody has misspelt, and the C library guesses.
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let is_number = last.bytes().all(|digit| digit.is_ascii_digit()) || last.starts_with("0x");
    if is_number || bare.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    CString::new(host).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_name_is_told_from_names() {
        let label = "a".repeat(60);
        let long = [label.as_str(); 4].join(".") + ".example";
        for name in
            ["example.org", "x", "example.org.", "1.example", "a_b", "xn--bcher-kva.example"]
        {
            assert!(as_name(name).is_some(), "{name}");
        }
        assert!(as_name(&long[..251]).is_some());
        for text in ["", ".", "1.2.3", "256.1.1.1", "a\0b", "a b", "[::1", "fe80::1%eth0", "0x7f"] {
            assert!(as_name(text).is_none(), "{text:?}");
        }
        assert!(as_name(&"a".repeat(254)).is_none());
    }

    #[test]
    fn a_name_of_this_machine_is_found_and_nonsense_is_not() {
        // Small letters are the only ones that `/etc/hosts` has.
        let found = look_up(c"LocalHost").unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 0));
        assert!(!found.is_empty());
        // No server is asked for an empty label.
        match look_up(c"a..b") {
            Err(Unresolved::Code(code, text)) => assert!(code < 0 && !text.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

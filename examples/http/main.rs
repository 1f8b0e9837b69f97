//! An HTTP server on every core: it greets whoever asks.
//!
//! ```text
//! cargo run --release --example http [address]      127.0.0.1:8080 unless given
//! curl -i http://127.0.0.1:8080/                    Hello, world!
//! wrk -c 64 -d 5 http://127.0.0.1:8080/             how many times a second
//! ```
//!
//! Connections are kept alive, and requests may be pipelined: what one read brings is answered by
//! one write. Bodies are skipped. It shows the network, and is not a framework: every path gets the
//! same answer, and chunked bodies are refused. A connection may be idle for as long as it likes, but a
//! request that has begun has to arrive within ten seconds, and its answer to be taken.

mod connection;
mod requests;

use std::cell::{Ref, RefCell};
use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use quoit::net::TcpListener;
use quoit::runtime;

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    runtime::start_per_core(async move || serve(&address).await)
}

/// What every core does: it binds the same address, and the kernel spreads the connections.
async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let core = runtime::core();
    if core.index() == 0 {
        println!("http://{}/ on {} cores", listener.local_addr()?, core.count());
    }
    let date = Rc::new(Date::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let date = Rc::clone(&date);
        drop(quoit::spawn(async move {
            // A client that has gone away is no news.
            let _ = connection::serve(stream, || date.text()).await;
        }));
    }
}

/// The core's `Date` header, written once a second.
#[derive(Default)]
struct Date(RefCell<(u64, String)>);

impl Date {
    fn text(&self) -> Ref<'_, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let second = now.map_or(0, |since| since.as_secs());
        if self.0.borrow().0 != second || self.0.borrow().1.is_empty() {
            *self.0.borrow_mut() = (second, format_date(second));
        }
        Ref::map(self.0.borrow(), |(_, text)| text)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, of seconds since 1970.
fn format_date(second: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, time) = (second / 86_400, second % 86_400);
    // Years that begin with March end with the leap day; eras of 400 of them are all alike.
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

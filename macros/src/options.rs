//! What stands in the brackets of an attribute: `cores = 2, driver = "epoll"`.

use std::iter::Peekable;

use proc_macro::{Span, TokenStream, TokenTree, token_stream};

use crate::error::Error;

/// Which of the attributes it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Main,
    Test,
}

const DRIVERS: [&str; 4] = ["auto", "uring", "epoll", "sim"];

/// What an attribute asks for, each with its place.
pub(crate) struct Options {
    pub(crate) kind: Kind,
    cores: Option<(Cores, Span)>,
    driver: Option<(String, Span)>,
    paused: Option<Span>,
    krate: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Cores {
    Count(String),
    /// As many as there are.
    All,
}

impl Options {
    pub(crate) fn parse(kind: Kind, tokens: TokenStream) -> Result<Self, Error> {
        let krate = "::quoit".to_owned();
        let mut options = Options { kind, cores: None, driver: None, paused: None, krate };
        let mut rest = tokens.into_iter().peekable();
        while let Some(token) = rest.next() {
            let TokenTree::Ident(key) = &token else {
                return Err(Error::new(token.span(), options.what_is_known()));
            };
            options.take(&key.to_string(), key.span(), &mut rest)?;
            match rest.next() {
                Some(TokenTree::Punct(comma)) if comma.as_char() == ',' => {}
                Some(other) => return Err(Error::new(other.span(), "a comma is missing here")),
                None => {}
            }
        }
        options.check()?;
        Ok(options)
    }

    fn take(&mut self, key: &str, at: Span, rest: &mut Rest) -> Result<(), Error> {
        match key {
            "cores" => {
                let (text, span) = value(key, at, rest)?;
                if text.parse::<usize>().is_ok_and(|count| count == 0) {
                    return Err(Error::new(span, "a runtime needs at least one core"));
                }
                if text.parse::<usize>().is_err() {
                    let text = "how many cores is a whole number, as in `cores = 2`";
                    return Err(Error::new(span, text));
                }
                self.set_cores(Cores::Count(text), at)
            }
            "per_core" if self.kind == Kind::Main => self.set_cores(Cores::All, at),
            "driver" => {
                let (name, span) = text(key, at, rest)?;
                if !DRIVERS.contains(&name.as_str()) {
                    let known = DRIVERS.map(|name| format!("\"{name}\"")).join(", ");
                    let text = format!("\"{name}\" is no driver; there are {known}");
                    return Err(Error::new(span, text));
                }
                once(&mut self.driver, (name, at), at)
            }
            "paused" if self.kind == Kind::Test => match value(key, at, rest)? {
                (text, _) if text == "true" => once(&mut self.paused, at, at),
                (text, _) if text == "false" => Ok(()),
                (_, span) => Err(Error::new(span, "`paused` is true or false")),
            },
            "crate" => {
                let (path, span) = text(key, at, rest)?;
                if path.parse::<TokenStream>().is_err() || path.is_empty() {
                    let text = "the path of quoit is a text, as in `crate = \"other::quoit\"`";
                    return Err(Error::new(span, text));
                }
                self.krate = path;
                Ok(())
            }
            _ => Err(Error::new(at, format!("`{key}` is unknown; {}", self.what_is_known()))),
        }
    }

    fn set_cores(&mut self, cores: Cores, at: Span) -> Result<(), Error> {
        once(&mut self.cores, (cores, at), at)
    }

    fn what_is_known(&self) -> &'static str {
        match self.kind {
            Kind::Main => {
                "`#[quoit::main]` takes `cores = 2`, `per_core`, `driver = \"epoll\"`, `crate = \"..\"`"
            }
            Kind::Test => {
                "`#[quoit::test]` takes `cores = 2`, `driver = \"epoll\"`, `paused = true`, `crate = \"..\"`"
            }
        }
    }

    /// What does not go together.
    fn check(&self) -> Result<(), Error> {
        let driver = self.driver.as_ref().map(|(name, at)| (name.as_str(), *at));
        if let (Some((_, at)), true) = (&self.cores, self.is_simulated()) {
            let text = "the simulator runs one core here; `quoit::sim::Sim` runs several";
            return Err(Error::new(*at, text));
        }
        match (self.paused, driver) {
            (Some(_), Some((name, at))) if name != "sim" => {
                let text = format!("time passes on \"{name}\"; it is paused on \"sim\" only");
                Err(Error::new(at, text))
            }
            _ => Ok(()),
        }
    }

    fn is_simulated(&self) -> bool {
        self.paused.is_some() || self.driver.as_ref().is_some_and(|(name, _)| name == "sim")
    }

    /// Whether the function runs on each of several cores, and may take a `Core`.
    pub(crate) fn is_per_core(&self) -> bool {
        self.cores.is_some()
    }

    /// What the function around the user's returns, if it is not what that returns.
    pub(crate) fn result(&self) -> Option<String> {
        self.is_per_core().then(|| format!("{}::runtime::Result<()>", self.krate))
    }

    /// Runs the function `name`.
    pub(crate) fn call(&self, name: &str) -> String {
        let krate = &self.krate;
        let mut builder = format!("{krate}::runtime::Builder::new()");
        let driver = self.driver.as_ref().map(|(name, _)| name.as_str());
        match driver {
            _ if self.paused.is_some() => builder.push_str(".paused()"),
            Some("sim") => builder.push_str(&format!(
                ".driver_with(|_| ::core::result::Result::Ok({krate}::sim::driver(0, \
                 ::core::default::Default::default())))"
            )),
            Some("uring") => {
                builder.push_str(&format!(".driver({krate}::driver::DriverKind::Uring)"))
            }
            Some("epoll") => {
                builder.push_str(&format!(".driver({krate}::driver::DriverKind::Epoll)"))
            }
            Some("auto") => {
                builder.push_str(&format!(".driver({krate}::driver::DriverKind::Auto)"))
            }
            _ => {}
        }
        match &self.cores {
            None => return format!("{krate}::runtime::run_or_panic({builder}, {name}())"),
            Some((Cores::Count(count), _)) => builder.push_str(&format!(".cores({count})")),
            Some((Cores::All, _)) => {}
        }
        if self.kind == Kind::Test {
            // The signals are the test program's, whose other threads run other tests.
            builder.push_str(".shutdown_on([])");
        }
        format!("{builder}.start_per_core({name})")
    }
}

type Rest = Peekable<token_stream::IntoIter>;

fn once<T>(place: &mut Option<T>, value: T, at: Span) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(at, "this was said before")),
    }
}

/// What stands behind `key =`.
fn value(key: &str, at: Span, rest: &mut Rest) -> Result<(String, Span), Error> {
    let missing = |at| Error::new(at, format!("`{key}` needs a value, as in `{key} = ..`"));
    match rest.peek() {
        Some(TokenTree::Punct(mark)) if mark.as_char() == '=' => drop(rest.next()),
        _ => return Err(missing(at)),
    }
    let value = rest.next().ok_or_else(|| missing(at))?;
    Ok((value.to_string(), value.span()))
}

/// A text behind `key =`, without its quotes.
fn text(key: &str, at: Span, rest: &mut Rest) -> Result<(String, Span), Error> {
    let (value, span) = value(key, at, rest)?;
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inside {
        Some(inside) => Ok((inside.to_owned(), span)),
        None => Err(Error::new(span, format!("`{key}` is a text, as in `{key} = \"..\"`"))),
    }
}

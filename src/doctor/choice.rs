//! Which kernel the cores would talk to, and why.

use std::fmt;

use super::json::Json;
use crate::driver::DriverKind;
use crate::driver::caps::Mask;
use crate::driver::kind::{Choice as Opened, Neither};
use crate::driver::uring::{Refused, Sizes};
use crate::runtime::diagnose::why;

/// What a start would come to.
#[derive(Debug)]
pub(super) struct Choice {
    /// What was wanted, and by whom.
    wanted: String,
    /// The driver that was opened for a trial, or why none could be.
    pub(super) driver: Result<&'static str, String>,
    /// Why it is not io_uring, where that was wanted.
    instead: Option<String>,
}

impl Choice {
    /// Makes the choice that a start without `Builder::driver` makes, and opens that driver once.
    pub(super) fn make() -> Self {
        let wanted = match std::env::var_os("QUOIT_DRIVER") {
            Some(name) => format!("QUOIT_DRIVER is {}", name.to_string_lossy()),
            None => "auto, as QUOIT_DRIVER is not set".to_owned(),
        };
        let opened = Choice::sizes().and_then(|(kind, sizes)| kind.open_with(sizes, None));
        match opened {
            Ok(Opened { found, refused, .. }) => {
                Choice { wanted, driver: Ok(found.name()), instead: refused.map(why) }
            }
            Err(neither) => {
                let mut text = why(neither.wanted);
                if let Some(other) = neither.other {
                    text = format!("{text}. Epoll cannot take its place: {}", why(other));
                }
                Choice { wanted, driver: Err(text), instead: None }
            }
        }
    }

    /// What the environment says.
    fn sizes() -> Result<(DriverKind, Sizes), Neither> {
        let only = |wanted| Neither { wanted, other: None };
        let kind = DriverKind::of_the_environment().map_err(only)?;
        let mask = Mask::of_the_environment().map_err(|unknown| {
            only(Refused { step: "reading QUOIT_CAPS", error: unknown.into() })
        })?;
        Ok((kind, Sizes { mask, ..Sizes::default() }))
    }

    pub(super) fn json(&self) -> Json {
        Json::Object(vec![
            ("wanted", Json::text(&*self.wanted)),
            ("chosen", Json::maybe(self.driver.as_ref().ok(), |name| Json::text(*name))),
            ("error", Json::maybe(self.driver.as_ref().err(), |text| Json::text(&**text))),
            ("instead_of_io_uring", Json::maybe(self.instead.as_deref(), Json::text)),
        ])
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Ok(name) => writeln!(f, "driver {name} ({})", self.wanted)?,
            Err(why) => writeln!(f, "driver none ({}): {why}", self.wanted)?,
        }
        match &self.instead {
            Some(why) => writeln!(f, "  it is used instead of io_uring: {why}"),
            None => Ok(()),
        }
    }
}

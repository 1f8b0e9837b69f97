//! What io_uring offers here, and what is lost without it.

use std::fmt;

use super::json::Json;
use crate::driver::caps::Mask;
use crate::driver::uring::{Sizes, Uring};
use crate::driver::{Capability, Driver, opcodes};
use crate::runtime::diagnose::why;

/// What is lost without an operation: there is nothing in its place.
const FAILS: &str = "what asks for it fails";

/// What io_uring offers, or why it cannot be asked.
#[derive(Debug)]
pub(super) struct Offer(Result<Rows, String>);

/// Flags and features, for which there are fallbacks, and operations.
#[derive(Debug)]
struct Rows {
    capabilities: Vec<Capability>,
    operations: Vec<Capability>,
}

impl Offer {
    /// Opens a ring to look, less what `QUOIT_CAPS` takes away.
    pub(super) fn ask() -> Self {
        let mask = match Mask::of_the_environment() {
            Ok(mask) => mask,
            Err(unknown) => return Offer(Err(format!("reading QUOIT_CAPS: {unknown}"))),
        };
        let ring = Uring::new(Sizes { mask, ..Sizes::default() }, None);
        Offer(ring.map(|ring| Rows::of(&ring)).map_err(why))
    }

    pub(super) fn json(&self) -> Json {
        let row = |row: &Capability| {
            Json::Object(vec![
                ("name", Json::text(row.name)),
                ("since", Json::text(row.since)),
                ("present", Json::Flag(row.present)),
                ("without", Json::text(row.without)),
            ])
        };
        match &self.0 {
            Ok(rows) => Json::Object(vec![
                ("error", Json::Null),
                ("capabilities", Json::list(&rows.capabilities, row)),
                ("operations", Json::list(&rows.operations, row)),
            ]),
            Err(error) => Json::Object(vec![("error", Json::text(&**error))]),
        }
    }
}

impl Rows {
    fn of(ring: &Uring) -> Self {
        let row = |&(code, name, since)| {
            let present = ring.supports(code);
            Capability { name, since, present, without: FAILS }
        };
        let operations = opcodes::USED.iter().map(row).collect();
        Rows { capabilities: ring.caps().list(), operations }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = match &self.0 {
            Ok(rows) => rows,
            Err(error) => return writeln!(f, "io_uring cannot be asked: {error}"),
        };
        writeln!(f, "io_uring, each with the first kernel that has it")?;
        for row in rows.capabilities.iter().chain(&rows.operations) {
            let Capability { name, since, present, without } = row;
            match present {
                true => writeln!(f, "  {name:<24} yes  {since}")?,
                false => writeln!(f, "  {name:<24} no   {since}; without it, {without}")?,
            }
        }
        Ok(())
    }
}

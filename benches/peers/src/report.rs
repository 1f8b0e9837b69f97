//! What the samples of a cell say: ratios taken inside one round, tables, and rows of TSV.

use std::fmt::Write;

use crate::trial::{Outcome, Record, Sample};

/// Contenders that every other is compared with, besides the base.
const REFERENCES: [&str; 2] = ["epoll", "tokio"];

/// From this share of time taken by other work on, a cell is marked.
const DISTURBED_MAX: f64 = 0.02;

pub const TSV_HEADER: &str = "cell\tserver\tcpu_ns_per_msg\tratio_base\tratio_base_p25\t\
    ratio_base_p75\tratio_base_of_p10\tratio_epoll\tratio_tokio\tmsgs_per_s\tp50_us\tp99_us\t\
    p999_us\tsyscalls_per_msg\tbusy\tdisturbed";

/// The result of one cell; the first row is the base.
pub struct CellReport {
    pub cell: String,
    pub rows: Vec<Row>,
    /// The contenders that could not be measured, and why.
    pub missing: Vec<(String, String)>,
}

pub struct Row {
    pub server: String,
    pub cpu_ns: f64,
    /// Against the base: the median and the middle half of the ratios of all rounds.
    pub ratio: Spread,
    /// The ratio of the 10th percentiles. Trust a difference that this and the median agree on.
    pub ratio_of_p10: f64,
    /// The median ratios against the references, where those took part.
    pub ratios_to_references: [Option<f64>; REFERENCES.len()],
    pub messages_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub syscalls: Option<f64>,
    pub busy: f64,
    /// Rounds of an open loop whose latencies are left out.
    pub spoiled: usize,
    /// Large when the machine has other work: then even the ratios are not to be trusted.
    pub disturbed: f64,
}

pub struct Spread {
    pub p25: f64,
    pub median: f64,
    pub p75: f64,
}

impl CellReport {
    /// The names belong to the outcomes, in the same order; the first one has a record.
    pub fn new(cell: &str, names: &[String], outcomes: &[Outcome]) -> CellReport {
        let base = outcomes[0].as_ref().expect("the base was measured");
        let references = REFERENCES.map(|reference| {
            let index = names.iter().position(|name| name == reference)?;
            outcomes[index].as_ref().ok()
        });
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for (name, outcome) in names.iter().zip(outcomes) {
            match outcome {
                Ok(record) => {
                    let to_references = references.map(|reference| {
                        reference.map(|reference| percentile(&mut ratios(record, reference), 0.5))
                    });
                    rows.push(Row::new(name, record, base, to_references));
                }
                Err(reason) => missing.push((name.clone(), reason.clone())),
            }
        }
        CellReport { cell: cell.to_owned(), rows, missing }
    }

    pub fn table(&self) -> String {
        let mut table = String::new();
        let base = &self.rows[0].server;
        let [first, second] = REFERENCES;
        writeln!(
            table,
            "{:<18} {:>8} {:>7} {:>15} {:>7} {:>7} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>5} {:>9}",
            self.cell,
            "ns/msg",
            format!("x {base}"),
            "(p25 - p75)",
            "of p10",
            format!("x {first}"),
            format!("x {second}"),
            "msg/s",
            "p50 us",
            "p99 us",
            "p99.9",
            "sys/msg",
            "busy",
            "disturbed",
        )
        .expect("writing to a string");
        for row in &self.rows {
            row.write_to(&mut table);
        }
        for (server, reason) in &self.missing {
            writeln!(table, "  {server:<16} none: {reason}").expect("writing to a string");
        }
        if self.rows.iter().any(|row| row.disturbed > DISTURBED_MAX) {
            table.push_str("  (other work on the servers' CPU: not to be trusted)\n");
        }
        let spoiled = self.rows.iter().map(|row| row.spoiled).max().unwrap_or(0);
        if spoiled > 0 {
            writeln!(table, "  (latencies of up to {spoiled} rounds are left out: other work)")
                .expect("writing to a string");
        }
        table
    }

    pub fn tsv(&self) -> String {
        let mut rows: String = self.rows.iter().map(|row| row.tsv(&self.cell)).collect();
        let empty = "\t-".repeat(TSV_HEADER.matches('\t').count() - 1);
        for (server, _) in &self.missing {
            writeln!(rows, "{}\t{server}{empty}", self.cell).expect("writing to a string");
        }
        rows
    }

    fn row_of(&self, server: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.server == server)
    }
}

impl Row {
    fn new(
        server: &str,
        record: &Record,
        base: &Record,
        ratios_to_references: [Option<f64>; REFERENCES.len()],
    ) -> Row {
        let median_of = |value: fn(&Sample) -> f64| {
            percentile(&mut record.samples.iter().map(value).collect::<Vec<_>>(), 0.5)
        };
        let mut to_base = ratios(record, base);
        let latency_us = |quantile| record.latency.quantile(quantile) as f64 / 1000.0;
        Row {
            server: server.to_owned(),
            cpu_ns: median_of(|sample| sample.cpu_ns_per_message),
            ratio: Spread {
                p25: percentile(&mut to_base, 0.25),
                median: percentile(&mut to_base, 0.5),
                p75: percentile(&mut to_base, 0.75),
            },
            ratio_of_p10: percentile(&mut costs(record), 0.1) / percentile(&mut costs(base), 0.1),
            ratios_to_references,
            messages_per_second: median_of(|sample| sample.messages_per_second),
            p50_us: latency_us(0.5),
            p99_us: latency_us(0.99),
            p999_us: latency_us(0.999),
            syscalls: record.syscalls_per_message(),
            busy: median_of(|sample| sample.busy),
            spoiled: record.spoiled,
            disturbed: median_of(|sample| sample.disturbed),
        }
    }

    fn write_to(&self, table: &mut String) {
        let [first, second] = self.ratios_to_references;
        writeln!(
            table,
            "  {:<16} {:>8.0} {:>7.3} {:>15} {:>7.3} {:>7} {:>7} {:>9.0} {:>8.1} {:>8.1} {:>8.1} \
             {:>8} {:>4.0}% {:>8.0}%",
            self.server,
            self.cpu_ns,
            self.ratio.median,
            format!("({:.3} - {:.3})", self.ratio.p25, self.ratio.p75),
            self.ratio_of_p10,
            optional(first),
            optional(second),
            self.messages_per_second,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            optional(self.syscalls),
            self.busy * 100.0,
            self.disturbed * 100.0,
        )
        .expect("writing to a string");
    }

    fn tsv(&self, cell: &str) -> String {
        let [first, second] = self.ratios_to_references;
        format!(
            "{cell}\t{}\t{:.1}\t{:.4}\t{:.4}\t{:.4}\t{:.4}\t{}\t{}\t{:.0}\t{:.1}\t{:.1}\t{:.1}\t\
             {}\t{:.3}\t{:.3}\n",
            self.server,
            self.cpu_ns,
            self.ratio.median,
            self.ratio.p25,
            self.ratio.p75,
            self.ratio_of_p10,
            optional(first),
            optional(second),
            self.messages_per_second,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            optional(self.syscalls),
            self.busy,
            self.disturbed,
        )
    }
}

/// Every cell in one line: the cost of the base, then the ratio of each other server to it.
pub fn summary(reports: &[CellReport], servers: &[String]) -> String {
    let width = |server: &str| server.len().max(8);
    let mut table = format!("{:<18} {:>9}", "CPU per message", "ns");
    for server in servers {
        write!(table, " {server:>0$}", width(server)).expect("writing to a string");
    }
    for report in reports {
        write!(table, "\n{:<18} {:>9.0}", report.cell, report.rows[0].cpu_ns)
            .expect("writing to a string");
        for server in servers {
            let ratio = optional(report.row_of(server).map(|row| row.ratio.median));
            write!(table, " {ratio:>0$}", width(server)).expect("writing to a string");
        }
    }
    table.push('\n');
    table
}

fn costs(record: &Record) -> Vec<f64> {
    record.samples.iter().map(|sample| sample.cpu_ns_per_message).collect()
}

/// The ratios of the costs inside each round.
fn ratios(record: &Record, base: &Record) -> Vec<f64> {
    costs(record).iter().zip(costs(base)).map(|(cost, base)| cost / base).collect()
}

/// The value at the rank `share` of the sorted values.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "a percentile of nothing");
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(costs: &[f64]) -> Record {
        let sample = |&cost| Sample {
            cpu_ns_per_message: cost,
            messages_per_second: 1.0,
            busy: 1.0,
            disturbed: 0.0,
        };
        let mut record = Record::default();
        record.samples.extend(costs.iter().map(sample));
        record
    }

    #[test]
    fn ratios_are_taken_inside_a_round_so_that_drift_cancels() {
        let names = ["raw".to_owned(), "tokio".to_owned()];
        let outcomes = [Ok(record(&[100.0, 200.0, 400.0])), Ok(record(&[130.0, 260.0, 520.0]))];
        let report = CellReport::new("cell", &names, &outcomes);
        let row = &report.rows[1];
        assert!((row.ratio.median - 1.3).abs() < 1e-9);
        assert!((row.ratio.p75 - row.ratio.p25).abs() < 1e-9);
        assert!((row.ratio_of_p10 - 1.3).abs() < 1e-9);
        assert_eq!(row.ratios_to_references, [None, Some(1.0)]);
    }

    #[test]
    fn who_could_not_be_measured_is_named_with_the_reason() {
        let names = ["raw".to_owned(), "tokio".to_owned()];
        let outcomes = [Ok(record(&[1.0])), Err("closed a connection".to_owned())];
        let report = CellReport::new("cell", &names, &outcomes);
        assert!(report.table().contains("none: closed a connection"));
        assert_eq!(report.rows[0].ratios_to_references, [None, None]);
        assert!(summary(&[report], &names).trim_end().ends_with('-'));
    }

    #[test]
    fn every_row_of_tsv_has_as_many_columns_as_the_header() {
        let names = ["raw".to_owned(), "none".to_owned()];
        let outcomes = [Ok(record(&[1.0])), Err("it has none".to_owned())];
        let tsv = CellReport::new("cell", &names, &outcomes).tsv();
        let columns = |line: &str| line.split('\t').count();
        assert_eq!(tsv.lines().count(), 2);
        tsv.lines().for_each(|line| assert_eq!(columns(line), columns(TSV_HEADER)));
    }
}

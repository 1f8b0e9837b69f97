//! Draws the chart of a run once more: `chart DIRECTORY [SVG]`.

use std::path::PathBuf;
use std::process::ExitCode;

use peers::chart;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(directory) = arguments.next() else {
        eprintln!("usage: chart DIRECTORY [SVG]    the directory of a run of scripts/bench.sh");
        return ExitCode::from(2);
    };
    let out = arguments.next().unwrap_or_else(|| directory.join("chart.svg"));
    match chart::draw(&directory, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chart: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

//! The chart of a run: grouped bars of CPU per message, as SVG, from the rows of its TSV.
//!
//! The same rows give the same bytes. The colours follow the reader's light or dark mode.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

/// The cells that are drawn, in this order, of those that were measured; all are compared.
const DRAWN: [(&str, &str); 12] = [
    ("echo64-1", "echo, 1"),
    ("echo64-50", "echo, 50"),
    ("echo64-500", "echo, 500"),
    ("echo64-2000", "echo, 2,000"),
    ("echo64-50-paced", "50 paced"),
    ("depth16-50", "depth 16, 50"),
    ("http-64", "HTTP, 64"),
    ("churn-50", "churn, 50"),
    ("udp64-50", "UDP, 50"),
    ("stream64k-16", "stream, 16"),
    ("stream1m-16", "1 MiB, 16"),
    ("echo1k-50", "1 KiB, 50"),
];

/// The bars of a group, in this order.
const SERVERS: [&str; 8] =
    ["quoit", "epoll", "tokio", "monoio", "compio", "tokio-uring", "kimojio", "glommio"];
const OURS: &str = "quoit";
/// How the name of the base's second appearance ends.
const CONTROL: &str = " again";

/// Differences below this are not resolved, from `MANY` connections on the second.
const RESOLVED: [f64; 2] = [0.03, 0.06];
const MANY: usize = 500;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 92.0;
const PLOT_HEIGHT: f64 = 260.0;
const LINE_HEIGHT: f64 = 17.0;
/// Bars end here; a longer one has its value written on it.
const RATIO_MAX: f64 = 2.0;
const LINE_LENGTH: usize = 140;

/// Plain rules, no variables: not every viewer of SVG knows those.
const STYLE: &str = "\
svg{font-family:system-ui,sans-serif;font-size:12px}text{fill:#1f2328}.soft{fill:#59636e}
.title{font-size:16px;font-weight:600}.middle{text-anchor:middle}.end{text-anchor:end}
.value{font-size:10px}.line{stroke:#d1d9e0}.one{stroke:#1f2328;stroke-dasharray:3 3}
.c0{fill:#0a7d5a}.c1{fill:#8c959f}.c2{fill:#b5793a}.c3{fill:#3f6fb5}.c4{fill:#86a9d6}
.c5{fill:#9a80c4}.c6{fill:#cc8fa9}.c7{fill:#cdbd94}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.line{stroke:#3d444d}
.one{stroke:#e6edf3}.c0{fill:#3fcf9b}.c1{fill:#7d8590}.c2{fill:#d19a5b}.c3{fill:#6a9be0}
.c4{fill:#4a6f9f}.c5{fill:#8f73bd}.c6{fill:#b57390}.c7{fill:#a8966b}}";

/// One server in one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub cell: String,
    pub server: String,
    pub ratio: f64,
    pub ratio_of_p10: f64,
}

/// The rows of a run's `results.tsv`, without those of servers that could not be measured.
pub fn parse(tsv: &str) -> Result<Vec<Measured>, String> {
    let mut lines = tsv.lines();
    let header: Vec<&str> = lines.next().unwrap_or("").split('\t').collect();
    let column = |name: &str| {
        let at = header.iter().position(|title| *title == name);
        at.ok_or_else(|| format!("there is no column {name}"))
    };
    let (cell, server) = (column("cell")?, column("server")?);
    let (ratio, ratio_of_p10) = (column("ratio_base")?, column("ratio_base_of_p10")?);
    let mut rows = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != header.len() {
            return Err(format!("not a row: {line}"));
        }
        if fields[ratio] == "-" {
            continue;
        }
        let number = |at: usize| fields[at].parse().map_err(|_| format!("not a number in: {line}"));
        rows.push(Measured {
            cell: fields[cell].to_owned(),
            server: fields[server].to_owned(),
            ratio: number(ratio)?,
            ratio_of_p10: number(ratio_of_p10)?,
        });
    }
    Ok(rows)
}

/// The cells in which another server needs less, by the median and by the 10th percentile, and by
/// more than is resolved, or than the control shows: the cell, and each of those servers with
/// ours ÷ theirs.
pub fn losses(rows: &[Measured]) -> Vec<(String, Vec<(String, f64)>)> {
    let mut losses = Vec::new();
    for ours in rows.iter().filter(|row| row.server == OURS) {
        let control =
            rows.iter().find(|row| row.cell == ours.cell && row.server.ends_with(CONTROL));
        let control = control.map_or(0.0, |row| (row.ratio - 1.0).abs());
        let resolved = RESOLVED[usize::from(connections(&ours.cell) >= MANY)].max(control);
        let ahead = |other: &&Measured| {
            other.cell == ours.cell
                && SERVERS.contains(&other.server.as_str())
                && ours.ratio / other.ratio > 1.0 + resolved
                && ours.ratio_of_p10 / other.ratio_of_p10 > 1.0 + resolved
        };
        let ahead = rows.iter().filter(ahead);
        let others: Vec<(String, f64)> =
            ahead.map(|other| (other.server.clone(), ours.ratio / other.ratio)).collect();
        if !others.is_empty() {
            losses.push((ours.cell.clone(), others));
        }
    }
    losses
}

/// The number in a cell's name that stands for its connections: the first part that is one.
fn connections(cell: &str) -> usize {
    cell.split('-').find_map(|part| part.parse().ok()).unwrap_or(0)
}

/// Writes the chart of the run in `directory` to the file `out`.
pub fn draw(directory: &Path, out: &Path) -> io::Result<()> {
    let rows =
        parse(&fs::read_to_string(directory.join("results.tsv"))?).map_err(io::Error::other)?;
    // A run without scripts/bench.sh has no description of the machine.
    let environment = fs::read_to_string(directory.join("environment.txt")).unwrap_or_default();
    fs::write(out, svg(&rows, &environment))
}

/// The chart. `environment` is what scripts/bench.sh wrote beside the rows.
pub fn svg(rows: &[Measured], environment: &str) -> String {
    let ratio_of = |cell: &str, server: &str| {
        rows.iter().find(|row| row.cell == cell && row.server == server).map(|row| row.ratio)
    };
    let cells: Vec<&(&str, &str)> =
        DRAWN.iter().filter(|(cell, _)| ratio_of(cell, OURS).is_some()).collect();
    let servers: Vec<&str> =
        SERVERS.into_iter().filter(|server| rows.iter().any(|row| row.server == *server)).collect();
    let notes = notes(rows, environment);
    let height = TOP + PLOT_HEIGHT + 40.0 + notes.len() as f64 * LINE_HEIGHT + 12.0;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Server CPU per message beside other runtimes\">\n<style>{STYLE}</style>\n"
    );
    text(&mut svg, LEFT, 28.0, "title", "Server CPU per message, × a hand-written io_uring loop");
    text(&mut svg, LEFT, 48.0, "soft", "lower is better; the dashed line is the loop itself");
    legend(&mut svg, &servers);
    axis(&mut svg);
    let group_width = (WIDTH - LEFT - RIGHT) / cells.len().max(1) as f64;
    for (index, (cell, label)) in cells.into_iter().enumerate() {
        let start = LEFT + index as f64 * group_width;
        let ratios = servers.iter().map(|server| (*server, ratio_of(cell, server)));
        group(&mut svg, start, group_width, ratios);
        let middle = start + group_width / 2.0;
        text(&mut svg, middle, TOP + PLOT_HEIGHT + 18.0, "middle", label);
    }
    for (index, note) in notes.iter().enumerate() {
        let y = TOP + PLOT_HEIGHT + 48.0 + index as f64 * LINE_HEIGHT;
        text(&mut svg, LEFT, y, "soft", note);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The lines below the plot: where we lose, the command, the machine.
fn notes(rows: &[Measured], environment: &str) -> Vec<String> {
    let of_cell = |(cell, others): (String, Vec<(String, f64)>)| {
        let others: Vec<String> =
            others.iter().map(|(server, by)| format!("{by:.2} × {server}")).collect();
        format!("{cell} ({})", others.join(", "))
    };
    let lost: Vec<String> = losses(rows).into_iter().map(of_cell).collect();
    let lost =
        if lost.is_empty() { "nowhere that is resolved".to_owned() } else { lost.join("; ") };
    let said = |key: &str| {
        let line = environment.lines().find_map(|line| line.strip_prefix(key));
        line.map_or("unknown", str::trim)
    };
    let first_two = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().take(2).collect();
        words.join(" ")
    };
    let mut notes = wrapped(&format!("Where quoit needs more: {lost}."));
    notes.extend(wrapped(&format!("scripts/bench.sh {}", said("arguments "))));
    notes.extend(wrapped(&format!(
        "{}, {}; {}; commit {}, {}",
        said("cpu "),
        first_two(said("kernel ")),
        first_two(said("rustc ")),
        said("commit "),
        said("date "),
    )));
    notes
}

fn wrapped(note: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in note.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= LINE_LENGTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn legend(svg: &mut String, servers: &[&str]) {
    let mut x = LEFT;
    for server in servers {
        rect(svg, x, 63.0, 11.0, 11.0, server);
        text(svg, x + 16.0, 73.0, "", server);
        x += 34.0 + server.len() as f64 * 7.0;
    }
}

fn axis(svg: &mut String) {
    for step in 0..=4 {
        let ratio = f64::from(step) * RATIO_MAX / 4.0;
        let y = y_of(ratio);
        let class = if ratio == 1.0 { "one" } else { "line" };
        let (right, label) = (WIDTH - RIGHT, format!("{ratio:.1}"));
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>"
        )
        .expect("writing to a string");
        text(svg, LEFT - 6.0, y + 4.0, "soft end", &label);
    }
}

fn group<'a>(
    svg: &mut String,
    start: f64,
    width: f64,
    ratios: impl ExactSizeIterator<Item = (&'a str, Option<f64>)>,
) {
    let gap = width * 0.12;
    let bar = (width - gap) / ratios.len().max(1) as f64;
    for (index, (server, ratio)) in ratios.enumerate() {
        let x = start + gap / 2.0 + index as f64 * bar;
        let Some(ratio) = ratio else {
            text(svg, x + bar / 2.0, y_of(0.0) - 3.0, "value middle soft", "–");
            continue;
        };
        let top = y_of(ratio.min(RATIO_MAX));
        rect(svg, x, top, bar - 1.0, y_of(0.0) - top, server);
        if server == OURS || ratio > RATIO_MAX {
            // To the left, where no bar that is drawn later covers it.
            text(svg, x + bar - 1.0, top - 4.0, "value end", &format!("{ratio:.2}"));
        }
    }
}

fn y_of(ratio: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - ratio / RATIO_MAX)
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, server: &str) {
    let colour = SERVERS.iter().position(|name| *name == server).unwrap_or(0);
    writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1\" \
         class=\"c{colour}\"/>"
    )
    .expect("writing to a string");
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>")
        .expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::TSV_HEADER;

    fn row(cell: &str, server: &str, ratio: f64, ratio_of_p10: f64) -> Measured {
        Measured { cell: cell.to_owned(), server: server.to_owned(), ratio, ratio_of_p10 }
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns_and_gaps_are_left_out() {
        let line = |server: &str, value: &str| {
            let values = vec![value; TSV_HEADER.matches('\t').count() - 1];
            format!("echo64-1\t{server}\t{}\n", values.join("\t"))
        };
        let tsv = format!("{TSV_HEADER}\n{}{}", line("quoit", "1.5"), line("kimojio", "-"));
        assert_eq!(parse(&tsv), Ok(vec![row("echo64-1", "quoit", 1.5, 1.5)]));
        assert!(parse(&format!("{TSV_HEADER}\nhalf\ta row\n")).is_err());
        assert!(parse("cell\tserver\n").is_err());
    }

    #[test]
    fn a_loss_is_what_both_measures_show_beyond_the_resolution() {
        let rows = [
            row("echo64-1", "quoit", 1.06, 1.06),
            row("echo64-1", "epoll", 0.94, 0.94),
            row("echo64-1", "tokio", 1.04, 1.04),
            row("echo64-1", "glommio", 0.90, 1.05),
            row("stream64k-1", "raw again", 1.20, 1.00),
            row("stream64k-1", "quoit", 1.10, 1.10),
            row("stream64k-1", "epoll", 0.95, 0.95),
            row("echo64-500-paced", "quoit", 1.05, 1.05),
            row("echo64-500-paced", "epoll", 1.00, 1.00),
        ];
        let losses = losses(&rows);
        assert_eq!(losses.len(), 1);
        assert_eq!(losses[0].0, "echo64-1");
        assert_eq!(losses[0].1.len(), 1);
        assert_eq!(losses[0].1[0].0, "epoll");
    }

    #[test]
    fn the_connections_of_a_cell_are_in_its_name() {
        assert_eq!(connections("echo64-500-paced"), 500);
        assert_eq!(connections("stream1m-16"), 16);
    }

    #[test]
    fn the_chart_says_where_we_lose_on_which_machine_and_by_which_command() {
        let rows = [row("echo64-1", "quoit", 1.06, 1.06), row("echo64-1", "epoll", 0.94, 0.94)];
        let environment = "date        today\ncpu         a <fast> one\narguments   echo udp\n";
        let chart = svg(&rows, environment);
        for words in ["echo64-1 (1.13 × epoll)", "a &lt;fast> one", "scripts/bench.sh echo udp"] {
            assert!(chart.contains(words), "{words} is not in {chart}");
        }
        assert_eq!(chart, svg(&rows, environment));
        assert_eq!(chart.matches("<rect").count(), 4, "two bars, and their legend");
    }
}

//! An operation's steps in time: live while it runs, and as a waterfall.

use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::client::Client;
use crate::api::{OperationView, StepView};
use crate::cli::failure::Failure;
use crate::cli::output::Out;
use crate::format::Format;
use crate::model::{OperationState, StepState};
use dataplane::ctl::Refusal;

/// Columns of the waterfall.
const WIDTH: usize = 40;

/// Whether to wait.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Wait {
    /// Wait for the end, showing each step; exit code 1 if it does not succeed
    #[arg(long)]
    wait: bool,
}

/// Tells what was begun, or with `--wait` what came of it.
pub(super) fn tell(client: &Client, begun: OperationView, wait: Wait, out: &mut Out) -> Result<(), Failure> {
    if !wait.wait {
        return out.value(&begun, |operation| {
            format!("operation {} ({}) is {}", operation.id, operation.kind, state(operation.state))
        });
    }
    let ended = live(client, &begun, out.format())?;
    show(&ended, out)?;
    verdict(&ended)
}

/// Follows an operation to its end, with a line per step where somebody looks.
pub(super) fn live(client: &Client, begun: &OperationView, format: Format) -> Result<OperationView, Failure> {
    if format == Format::Json {
        return client.follow(&begun.id, |_| {});
    }
    // Standard error, and nothing at all where that is no terminal.
    let mut lines = Lines { all: MultiProgress::new(), bars: Vec::new() };
    let ended = client.follow(&begun.id, |operation| lines.update(operation));
    let _ = lines.all.clear();
    ended
}

struct Lines {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Lines {
    fn update(&mut self, operation: &OperationView) {
        for (place, step) in operation.steps.iter().enumerate() {
            if self.bars.len() == place {
                let bar = self.all.add(ProgressBar::new_spinner());
                // A fixed template: it is right, or the first run shows it.
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                self.bars.push(bar);
            }
            let Some(bar) = self.bars.get(place).filter(|bar| !bar.is_finished()) else { continue };
            let text = match step.ms {
                Some(ms) => format!("{:<12} {:<8} {ms:.1} ms", step.name, mark(step.state)),
                None => format!("{:<12} {}", step.name, mark(step.state)),
            };
            bar.set_message(text);
            if step.state != StepState::Running {
                bar.finish();
            }
        }
    }
}

/// The operation, with its waterfall.
pub(super) fn show(operation: &OperationView, out: &mut Out) -> Result<(), Failure> {
    out.value(operation, text)
}

/// Ok only for an operation that has done what it was asked for.
pub(super) fn verdict(operation: &OperationView) -> Result<(), Failure> {
    if operation.state == OperationState::Done {
        return Ok(());
    }
    let refusal = match &operation.problem {
        Some(problem) => Refusal {
            what: problem.what.clone(),
            place: problem.place.clone(),
            remedy: problem.remedy.clone(),
        },
        None => Refusal {
            what: format!("the operation is {}", state(operation.state)),
            place: format!("operation {}", operation.id),
            remedy: "look at `shunt operation show`".into(),
        },
    };
    Err(Failure::failed(refusal))
}

fn text(operation: &OperationView) -> String {
    let mut text = format!(
        "operation  {}\nkind       {}\nstate      {}\n",
        operation.id,
        operation.kind,
        state(operation.state)
    );
    if let Some(vm) = &operation.vm {
        text += &format!("vm         {vm}\n");
    }
    text += &format!("asked for  {}\n", operation.created_at);
    if let Some(ms) = operation.ms {
        text += &format!("took       {ms:.1} ms\n");
    }
    if let Some(times) = &operation.times {
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        text += &format!(
            "switch     swap {:.1} µs, settled {:.1} µs, lease {}, first packet {}\n",
            times.swap_ns as f64 / 1000.0,
            times.settled_ns as f64 / 1000.0,
            ms(times.lease_ms),
            ms(times.first_packet_ms)
        );
    }
    if let Some(problem) = &operation.problem {
        text += &format!("problem    {} ({}); {}\n", problem.what, problem.place, problem.remedy);
    }
    text.push('\n');
    for line in waterfall(&operation.steps) {
        text += &line;
        text.push('\n');
    }
    text
}

/// A line per step: its name, where in time it lies, how long it took.
fn waterfall(steps: &[StepView]) -> Vec<String> {
    let end_of = |step: &StepView| step.start_ms + step.ms.unwrap_or(0.0);
    let end = steps.iter().map(end_of).fold(0.0_f64, f64::max).max(f64::MIN_POSITIVE);
    let longest = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    steps
        .iter()
        .map(|step| {
            let from = column(step.start_ms, end).min(WIDTH - 1);
            let to = column(end_of(step), end).clamp(from + 1, WIDTH);
            let bar = format!("{}{}{}", " ".repeat(from), "█".repeat(to - from), " ".repeat(WIDTH - to));
            let took = step.ms.map_or_else(|| "…".into(), |ms| format!("{ms:.1} ms"));
            let detail = step.detail.as_deref().map(|detail| format!("  {detail}")).unwrap_or_default();
            let line = format!(
                "{:<longest$}  {bar}  {:>9.1} ms  {took:>10}  {}{detail}",
                step.name,
                step.start_ms,
                mark(step.state)
            );
            line.trim_end().to_owned()
        })
        .collect()
}

/// Where a time lies among [`WIDTH`] columns.
fn column(ms: f64, end: f64) -> usize {
    let share = (ms / end).clamp(0.0, 1.0);
    (0..WIDTH).take_while(|column| (*column as f64 + 0.5) / WIDTH as f64 <= share).count()
}

fn mark(state: StepState) -> &'static str {
    match state {
        StepState::Running => "running",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Undone => "undone",
    }
}

/// A state, as people read it.
pub(super) fn state(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Undoing => "undoing",
        OperationState::Done => "done",
        OperationState::Undone => "undone",
        OperationState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, start_ms: f64, ms: Option<f64>, state: StepState) -> StepView {
        StepView { name: name.into(), state, start_ms, ms, detail: None }
    }

    #[test]
    fn steps_lie_where_they_were() {
        let steps = [
            step("claim", 0.0, Some(25.0), StepState::Done),
            step("change", 25.0, Some(50.0), StepState::Done),
            step("quick", 75.0, Some(0.0), StepState::Failed),
            step("ready", 75.0, Some(25.0), StepState::Undone),
        ];
        let lines = waterfall(&steps);
        let bar = |line: &str| {
            let from = line.chars().position(|c| c == '█').unwrap() - 8;
            (from, line.matches('█').count())
        };
        assert_eq!(
            lines.iter().map(|line| bar(line)).collect::<Vec<_>>(),
            [(0, 10), (10, 20), (30, 1), (30, 10)]
        );
        assert!(lines[1].starts_with("change  ") && lines[1].ends_with("50.0 ms  done"), "{}", lines[1]);
        assert!(lines[2].ends_with("failed"));
    }

    #[test]
    fn what_has_just_begun_is_drawn_too() {
        let lines = waterfall(&[step("claim", 0.0, None, StepState::Running)]);
        assert!(lines[0].contains('█') && lines[0].ends_with("running"), "{}", lines[0]);
        assert!(waterfall(&[]).is_empty());
    }
}

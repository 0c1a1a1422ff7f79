//! Shows a job's messages to a person: a bar on a terminal, plain lines everywhere else.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt::say;
use crate::domain::progress::{EpochMetrics, Level, Phase, Progress};
use crate::domain::score::Score;
use crate::process::protocol::Message;

/// How often a plain line reports progress within a phase.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Writes to stderr, so that stdout stays free for results.
#[derive(Debug)]
pub(super) struct ProgressDisplay {
    bar: Option<ProgressBar>,
    phase: Option<(Phase, Instant)>,
    last_line: Instant,
}

impl Default for ProgressDisplay {
    fn default() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {percent:>3} %  {msg}");
            ProgressBar::new(1000)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
        });
        Self { bar, phase: None, last_line: Instant::now() }
    }
}

impl ProgressDisplay {
    /// Shows one message.
    pub(super) fn show(&mut self, message: &Message) {
        match message {
            Message::Phase { phase } => self.begin(*phase),
            Message::Progress(progress) => self.advance(progress),
            Message::Metric(metrics) => self.line(&epoch_line(metrics)),
            Message::Log { level: Level::Info, message } => self.line(message),
            Message::Log { level: Level::Warning, message } => self.line(&format!("warning: {message}")),
            Message::Checkpoint { .. } | Message::Planned { .. } => {}
            Message::Stopped | Message::Failed { .. } | Message::TransientFailure { .. } | Message::Finished { .. } => {
                self.finish();
            }
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.finish();
        self.phase = Some((phase, Instant::now()));
        self.last_line = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_prefix(phase.as_str());
            bar.set_message("");
            bar.set_position(0);
        }
    }

    /// Ends the running phase with a line that gives its duration.
    pub(super) fn finish(&mut self) {
        if let Some((phase, since)) = self.phase.take() {
            self.line(&format!("{:>10}  {:.2} s", phase.as_str(), since.elapsed().as_secs_f64()));
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bar.reset();
        }
    }

    fn advance(&mut self, progress: &Progress) {
        let text = progress_text(progress);
        match &self.bar {
            Some(bar) => {
                bar.set_position((progress.fraction * 1000.0) as u64);
                bar.set_message(text);
            }
            None if self.last_line.elapsed() >= PLAIN_INTERVAL => {
                self.last_line = Instant::now();
                let phase = progress.phase.as_str();
                self.line(&format!("{phase:>10}  {:.0} %  {text}", progress.fraction * 100.0));
            }
            None => {}
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

fn progress_text(progress: &Progress) -> String {
    let parts = [
        progress.epoch.map(|epoch| format!("epoch {}", epoch + 1)),
        progress.images_per_s.map(|speed| format!("{speed:.0} images/s")),
        progress.eta_s.map(|eta| format!("{eta:.0} s left")),
        progress.job_fraction.map(|done| format!("job {:.0} %", done * 100.0)),
        progress.job_eta_s.map(|eta| format!("{eta:.0} s left")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn epoch_line(metrics: &EpochMetrics) -> String {
    let scored = |name: &str, score: Option<Score>| score.map(|score| format!("{name} {score}"));
    let parts = [
        Some(format!("{:>10}  {}", "epoch", metrics.epoch)),
        metrics.train_loss.map(|loss| format!("loss {loss:.4}")),
        metrics.train_accuracy.map(|accuracy| format!("train {:.2} %", accuracy * 100.0)),
        scored("validation", metrics.validation),
        scored("test", metrics.test),
        metrics.images_per_s.map(|speed| format!("{speed:.0} images/s")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_one_line_with_what_is_known() {
        let zero = EpochMetrics {
            epoch: 0,
            train_loss: None,
            train_accuracy: None,
            validation: Some(Score::of_classes(0.5, 1.0)),
            test: None,
            lr: None,
            images_per_s: None,
        };
        assert_eq!(epoch_line(&zero).trim(), "epoch  0  validation 50.00 %");
    }
}

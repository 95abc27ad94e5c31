//! The lanes while they run: a bar and a line each on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::rehearsal::play::Scene;

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);
/// The lanes of a rehearsal in a box.
pub const BOTH: [&str; 2] = ["directly", "through tidegate"];

/// The longest name of a lane that is shown.
const NAME: usize = 16;

/// Shows scenes as they come.
pub struct Live {
    names: Vec<String>,
    bars: Option<Bars>,
    say: fn(&str),
    last: Option<(Duration, &'static str)>,
}

struct Bars {
    all: MultiProgress,
    time: ProgressBar,
    lanes: Vec<ProgressBar>,
}

impl Live {
    /// Draws on standard error where that is a terminal; else `say` is given a line now and then.
    pub fn new(lanes: &[&str], lasts: Duration, say: fn(&str)) -> Self {
        let names: Vec<String> = lanes.iter().map(|name| name.chars().take(NAME).collect()).collect();
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bars = (!target.is_hidden()).then(|| Bars::new(target, &names, lasts));
        Self { names, bars, say, last: None }
    }

    /// What is going on now.
    pub fn show(&mut self, scene: &Scene) {
        if let Some(bars) = &self.bars {
            return bars.show(scene);
        }
        let last = self.last.map(|(_, doing)| doing);
        let due = self.last.is_none_or(|(at, doing)| doing != scene.doing || scene.elapsed >= at + EVERY);
        if due {
            self.last = Some((scene.elapsed, scene.doing));
            let lane =
                |(name, (ended, failed)): (&String, &(usize, usize))| format!("{name} {failed} of {ended}");
            let lanes: Vec<String> = self.names.iter().zip(&scene.lanes).map(lane).collect();
            let elapsed = scene.elapsed.as_secs_f64();
            let step =
                if last == Some(scene.doing) { String::new() } else { format!("{}\n       ", scene.doing) };
            (self.say)(&format!("{elapsed:>3.0} s  {step}failed {}\n", lanes.join(", ")));
        }
    }

    /// Clears the terminal for what follows.
    pub fn end(self) {
        if let Some(bars) = self.bars {
            // A terminal that can't be cleared keeps the last picture.
            _ = bars.all.clear();
        }
    }
}

impl Bars {
    fn new(target: ProgressDrawTarget, names: &[String], lasts: Duration) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let time = all.add(ProgressBar::new(lasts.as_millis() as u64));
        time.set_style(style("  {bar:40.cyan/blue} {msg}").progress_chars("━╸─"));
        let lane = |name: &String| {
            let lane = all.add(ProgressBar::new(1));
            lane.set_style(
                style("  {prefix} {bar:23.green/white} {pos:>4} operations, {msg}").progress_chars("━╸─"),
            );
            lane.set_prefix(format!("{name:<NAME$}"));
            lane
        };
        let lanes = names.iter().map(lane).collect();
        Self { all, time, lanes }
    }

    fn show(&self, scene: &Scene) {
        self.time.set_position(scene.elapsed.as_millis() as u64);
        self.time.set_message(scene.doing);
        for (bar, (ended, failed)) in self.lanes.iter().zip(&scene.lanes) {
            bar.set_length(scene.planned as u64);
            bar.set_position(*ended as u64);
            bar.set_message(if *failed == 0 {
                "0 failed".to_owned()
            } else {
                format!("\x1b[31;1m{failed} failed\x1b[0m")
            });
        }
    }
}

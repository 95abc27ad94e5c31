//! The lanes while they run: a bar and a line each on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::rehearsal::play::{Act, Scene};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);
/// The names of the lanes, as wide as each other.
const LANES: [&str; 2] = ["directly        ", "through tidegate"];

/// Shows scenes as they come.
pub struct Live {
    bars: Option<Bars>,
    say: fn(&str),
    last: Option<(Duration, Act)>,
}

struct Bars {
    all: MultiProgress,
    time: ProgressBar,
    lanes: [ProgressBar; 2],
}

impl Live {
    /// Draws on standard error where that is a terminal; else `say` is given a line now and then.
    pub fn new(lasts: Duration, say: fn(&str)) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bars = (!target.is_hidden()).then(|| Bars::new(target, lasts));
        Self { bars, say, last: None }
    }

    /// What is going on now.
    pub fn show(&mut self, scene: &Scene) {
        if let Some(bars) = &self.bars {
            return bars.show(scene);
        }
        let due = self.last.is_none_or(|(at, act)| act != scene.act || scene.elapsed >= at + EVERY);
        if due {
            self.last = Some((scene.elapsed, scene.act));
            let [direct, through] = LANES.map(str::trim_end);
            let [(direct_ended, direct_failed), (ended, failed)] = scene.lanes;
            (self.say)(&format!(
                "{:>3.0} s, {}: {direct} {direct_failed} of {direct_ended} failed, {through} {failed} of {ended}\n",
                scene.elapsed.as_secs_f64(),
                words(scene.act),
            ));
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
    fn new(target: ProgressDrawTarget, lasts: Duration) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let time = all.add(ProgressBar::new(lasts.as_millis() as u64));
        time.set_style(style("  {bar:40.cyan/blue} {msg}").progress_chars("━╸─"));
        let lanes = LANES.map(|name| {
            let lane = all.add(ProgressBar::new(1));
            lane.set_style(
                style("  {prefix} {bar:23.green/white} {pos:>4} operations, {msg}").progress_chars("━╸─"),
            );
            lane.set_prefix(name);
            lane
        });
        Self { all, time, lanes }
    }

    fn show(&self, scene: &Scene) {
        self.time.set_position(scene.elapsed.as_millis() as u64);
        self.time.set_message(words(scene.act));
        for (bar, (ended, failed)) in self.lanes.iter().zip(scene.lanes) {
            bar.set_length(scene.planned as u64);
            bar.set_position(ended as u64);
            bar.set_message(if failed == 0 {
                "0 failed".to_owned()
            } else {
                format!("\x1b[31;1m{failed} failed\x1b[0m")
            });
        }
    }
}

fn words(act: Act) -> &'static str {
    match act {
        Act::FormerKey => "two replicas, one key",
        Act::BothKeys => "upgrading: two keys",
        Act::NewKey => "upgraded: the new key",
    }
}

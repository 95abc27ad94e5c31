//! Times, sizes and rates.

use std::{num::NonZeroU32, time::Duration};

use super::{settings::Rate, written::Written};

/// A time in the unit that its author chose: `"45s"`, at most ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    count: u64,
    unit: &'static (&'static str, u64),
}

/// Names and milliseconds.
static TIMES: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    pub const fn millis(count: u64) -> Self {
        Self { count, unit: &TIMES[0] }
    }

    pub const fn seconds(count: u64) -> Self {
        Self { count, unit: &TIMES[1] }
    }

    pub const fn minutes(count: u64) -> Self {
        Self { count, unit: &TIMES[2] }
    }

    pub const fn hours(count: u64) -> Self {
        Self { count, unit: &TIMES[3] }
    }

    pub fn duration(self) -> Duration {
        Duration::from_millis(self.count.saturating_mul(self.unit.1))
    }
}

impl Written for Span {
    const FORMAT: &'static str = "time";

    fn read(text: &str) -> Option<Self> {
        let longest = Duration::from_hours(10 * 366 * 24);
        let (count, unit) = count_and_unit(text, &TIMES)?;
        Some(Self { count, unit }).filter(|span| span.duration() <= longest)
    }

    fn write(&self) -> String {
        format!("{}{}", self.count, self.unit.0)
    }
}

/// A number of bytes in the unit that its author chose: `"64KiB"`, at most 1 PiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    count: u64,
    unit: &'static (&'static str, u64),
}

/// Names and bytes.
static SIZES: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Size {
    pub const fn kib(count: u64) -> Self {
        Self { count, unit: &SIZES[1] }
    }

    pub const fn mib(count: u64) -> Self {
        Self { count, unit: &SIZES[2] }
    }

    pub const fn gib(count: u64) -> Self {
        Self { count, unit: &SIZES[3] }
    }

    pub fn bytes(self) -> usize {
        usize::try_from(self.count.saturating_mul(self.unit.1)).unwrap_or(usize::MAX)
    }
}

impl Written for Size {
    const FORMAT: &'static str = "size";

    fn read(text: &str) -> Option<Self> {
        let (count, unit) = count_and_unit(text, &SIZES)?;
        Some(Self { count, unit }).filter(|size| size.bytes() <= 1 << 50)
    }

    fn write(&self) -> String {
        format!("{}{}", self.count, self.unit.0)
    }
}

/// Digits and then a unit exactly as in `units`; no sign, fraction or space.
fn count_and_unit(
    text: &str,
    units: &'static [(&'static str, u64)],
) -> Option<(u64, &'static (&'static str, u64))> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, name) = text.split_at(digits);
    Some((count.parse().ok()?, units.iter().find(|unit| unit.0 == name)?))
}

impl Written for Rate {
    const FORMAT: &'static str = "rate";

    fn read(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            _ => return None,
        };
        if !count.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self { count: count.parse::<NonZeroU32>().ok()?, per: Duration::from_secs(seconds) })
    }

    fn write(&self) -> String {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        format!("{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_one_number_and_one_unit() {
        let ms = |text| Span::read(text).map(|s| s.duration().as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("0s"), Some(0));
        assert_eq!(ms("12h"), Some(43_200_000));
        for bad in ["", "5", "s", "-5s", "+5s", "5 s", "1.5s", "5S", "5sec", "99999999999999999999s", "9000d"]
        {
            assert_eq!(ms(bad), None, "{bad}");
        }
        assert_eq!(Size::read("64KiB").map(Size::bytes), Some(65_536));
        for bad in ["64KB", "64kib", "64", "9999999TiB"] {
            assert_eq!(Size::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_count_from_one() {
        assert_eq!(Rate::read("10/min").map(|r| (r.count.get(), r.per.as_secs())), Some((10, 60)));
        for bad in ["0/s", "10", "10/day", "-1/s", "+1/s", "/s"] {
            assert_eq!(Rate::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_is_written_as_it_was_read() {
        for text in ["500ms", "90s", "30m"] {
            assert_eq!(Span::read(text).map(|s| s.write()).as_deref(), Some(text));
        }
        assert_eq!(Rate::read("1/s").map(|r| r.write()).as_deref(), Some("1/s"));
    }
}

//! Points in time of the configuration: TOML's date-times with a zone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use toml::value::{Datetime, Offset};

use crate::words::clock::UnixTime;

/// `2026-12-01T20:00:00Z`. A time without a zone is none: replicas may run in different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub UnixTime);

impl Moment {
    pub const FORMAT: &'static str = "date-time";

    pub fn read(text: &str) -> Option<Self> {
        let written: Datetime = text.parse().ok()?;
        let (date, time, offset) = (written.date?, written.time?, written.offset?);
        let offset_minutes = match offset {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes),
        };
        let minutes = i64::from(time.hour) * 60 + i64::from(time.minute) - offset_minutes;
        let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
        let seconds = i64::from(time.second.unwrap_or(0));
        Some(Self(UnixTime(days * 86_400 + minutes * 60 + seconds)))
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; the year begins in March, so that a leap day ends it.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&String::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("no date-time with a zone"))
    }
}

/// Seconds since 1970: no default holds a moment, so only tests see it.
impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.0)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        Self::FORMAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": Self::FORMAT, "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Option<i64> {
        Moment::read(text).map(|moment| moment.0.0)
    }

    #[test]
    fn date_times_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2026-12-01T20:00:00Z", 1_796_155_200),
            ("2026-12-01T21:00:00+01:00", 1_796_155_200),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(moment(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_none() {
        assert_eq!(moment("2026-12-01T20:00:00"), None);
        assert_eq!(moment("2026-12-01"), None);
    }
}

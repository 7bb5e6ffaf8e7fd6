//! Time as plain integers. Nothing here reads a clock: `now` always comes in as an argument.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A moment that never comes.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(span.0))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub_unsigned(span.0))
    }
}

/// A span of time in milliseconds. Written `"90s"`, `"1h30m"`, `"250ms"` wherever people or programs meet it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The longest span accepted anywhere: ten years.
    pub const MAX: Millis = Millis(10 * 365 * 24 * 3_600_000);

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Millis {
        Millis(secs * 1000)
    }
}

/// A text that is no duration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidDuration(pub String);

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration such as \"90s\", \"1h30m\" or \"250ms\" (at most ten years)", self.0)
    }
}
impl std::error::Error for InvalidDuration {}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Millis {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Millis, InvalidDuration> {
        let invalid = || InvalidDuration(text.chars().take(40).collect());
        let (mut rest, mut total) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(invalid)?.1;
            total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
            rest = &rest[letters..];
        }
        if text.is_empty() || total > Millis::MAX.0 { Err(invalid()) } else { Ok(Millis(total)) }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left = self.0;
        for (unit, size) in UNITS {
            if left >= size {
                write!(f, "{}{unit}", left / size)?;
                left %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["90s", "1h30m", "250ms", "2d", "0s", "1m30s500ms"] {
            let span: Millis = text.parse().expect("a duration");
            assert_eq!(span.to_string().parse::<Millis>(), Ok(span), "{text}");
        }
        assert_eq!("90s".parse(), Ok(Millis(90_000)));
        assert_eq!(Millis(5_400_000).to_string(), "1h30m");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "90", "-1s", "1.5h", "10 s", "99999999999999999999s", "4000d", "1H"] {
            assert!(text.parse::<Millis>().is_err(), "{text:?}");
        }
    }
}

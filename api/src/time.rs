//! Times on the wire are RFC 3339 in UTC; inside they are milliseconds.

use chiptide_model::Timestamp;
use chrono::{DateTime, Utc};

/// A moment as the wire writes it. Moments outside chrono's range (±262,000 years) become the epoch.
pub fn to_utc(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or_default()
}

/// A moment read from the wire.
pub fn from_utc(at: DateTime<Utc>) -> Timestamp {
    Timestamp(at.timestamp_millis())
}

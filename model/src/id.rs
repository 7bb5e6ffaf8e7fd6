//! One registry of typed ids. A job can never be passed where a lease is meant.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map($name)
            }
        }
    };
}

uuid_id!(
    /// A job, minted before its submit enters a round (UUIDv7: sorts by time of submission).
    JobId
);
uuid_id!(
    /// A lease: the *identity* of one grant. Order between grants of a chip is the lease epoch, never this.
    LeaseId
);
uuid_id!(
    /// One incarnation of an agent on a node, issued by the daemon at registration and matched exactly.
    SessionId
);

/// A name was empty, too long, or held a character outside `A-Z a-z 0-9 . _ : -`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidName(pub String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a name: 1 to 128 of A-Z a-z 0-9 . _ : -", self.0)
    }
}
impl std::error::Error for InvalidName {}

/// Whether `text` may name something: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
pub fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name over, or says why it is none (see [`InvalidName`]).
            pub fn new(text: &str) -> Result<Self, $crate::id::InvalidName> {
                if $crate::id::is_name(text) { Ok($name(text.into())) } else { Err($crate::id::InvalidName(text.chars().take(64).collect())) }
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = $crate::id::InvalidName;
            fn from_str(text: &str) -> Result<Self, $crate::id::InvalidName> {
                $name::new(text)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                $name::new(&text).map_err(serde::de::Error::custom)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use name_id;

name_id!(
    /// A node, by the name its agent registers under.
    NodeId
);
name_id!(
    /// A chip, by the unique id its vendor's driver reports (`GPU-…`); never an index, which moves at reboot.
    ChipId
);

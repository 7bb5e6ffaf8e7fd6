//! RFC 9457 problem answers: every error a client can get, in one shape.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use utoipa::ToSchema;

/// The body of every error answer (`application/problem+json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem; its last part is `code`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/unknown_queue")]
    pub kind: String,
    /// Short, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    #[schema(example = "unknown_queue")]
    pub code: String,
    /// This occurrence, for people.
    pub detail: String,
    /// The field at fault, as a path into the body (`jobs[3].replicas`) or the name of a parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The request's id, as in the answer's `x-request-id` and in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When to try again, as the answer's `Retry-After` said; not a part of the body.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.title, self.code, self.detail)?;
        match &self.field {
            Some(field) => write!(f, " [field {field}]"),
            None => Ok(()),
        }
    }
}

/// A value the wire allows but the model refuses, with the field at fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct Invalid {
    /// A stable code.
    pub code: &'static str,
    /// Path of the field.
    pub field: String,
    /// What is wrong, for people.
    pub detail: String,
}

impl Invalid {
    /// A refusal of one field.
    pub fn new(code: &'static str, field: impl Into<String>, detail: impl Into<String>) -> Invalid {
        Invalid { code, field: field.into(), detail: detail.into() }
    }

    /// The same refusal, with its field placed under `prefix`.
    pub fn under(mut self, prefix: &str) -> Invalid {
        self.field = format!("{prefix}.{}", self.field);
        self
    }
}

/// Reads JSON and, when it does not fit, says which field is at fault.
pub fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Invalid> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return Invalid::new("malformed_json", ".", inner.to_string());
        }
        let field = unknown_field(&inner.to_string()).map_or(path.clone(), |name| match path.as_str() {
            "." => name.to_owned(),
            _ if path.ends_with(name) => path.clone(),
            _ => format!("{path}.{name}"),
        });
        Invalid::new("invalid_field", field, inner.to_string())
    })?;
    reader.end().map_err(|error| Invalid::new("malformed_json", ".", error.to_string()))?;
    Ok(value)
}

fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

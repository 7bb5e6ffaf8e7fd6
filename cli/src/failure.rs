//! What can go wrong, in one line for people and one number for programs.

use chiptide_api::{ClientError, Invalid};
use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon refused, or gave no answer.
    #[error("{}", client_line(.0))]
    Client(#[from] ClientError),
    /// The command or its file is wrong; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// The field of a file that is at fault; nothing was sent.
    #[error("{0} ({code})", code = .0.code)]
    Invalid(#[from] Invalid),
    /// What was waited for did not come.
    #[error("{0}")]
    Unmet(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Other(error.into())
    }
}

impl Failure {
    /// The exit code: 1 error, 2 usage, 3 not found, 4 refused.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Invalid(_) => 2,
            Failure::Client(ClientError::Refused(problem)) => match problem.status {
                404 => 3,
                400..=499 => 4,
                _ => 1,
            },
            Failure::Client(_) | Failure::Unmet(_) | Failure::Other(_) => 1,
        }
    }

    /// Says it on stderr. A reader that has closed its end (`| head`) is no failure.
    pub(crate) fn report(&self) -> ExitCode {
        if let Failure::Other(error) = self {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
        }
        eprintln!("error: {self}");
        ExitCode::from(self.code())
    }
}

fn client_line(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { url, source } => {
            let mut cause: &dyn Error = source;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!("no answer from {url} ({cause}); is a daemon running there? `chiptide up` starts one")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_api::Problem;

    fn refused(status: u16) -> Failure {
        let problem = serde_json::json!({
            "type": "/problems/unknown_queue", "title": "Unknown queue", "status": status, "code": "unknown_queue",
            "detail": "there is no queue \"x\"", "field": "queue"
        });
        let problem: Problem = serde_json::from_value(problem).expect("a problem");
        Failure::Client(ClientError::Refused(Box::new(problem)))
    }

    #[test]
    fn exit_codes_are_as_documented() {
        assert_eq!(Failure::Unmet("too late".into()).code(), 1);
        assert_eq!(Failure::Usage("no such file".into()).code(), 2);
        assert_eq!(Failure::Invalid(Invalid::new("out_of_range", "chips", "0")).code(), 2);
        assert_eq!(refused(404).code(), 3);
        assert_eq!([400, 401, 403, 409, 422].map(|status| refused(status).code()), [4; 5]);
        assert_eq!(refused(503).code(), 1);
    }

    #[test]
    fn a_refusal_is_one_line_with_its_code_and_field() {
        let line = refused(422).to_string();
        assert_eq!(line, "Unknown queue (unknown_queue): there is no queue \"x\" [field queue]");
        let line = Failure::Invalid(Invalid::new("out_of_range", "jobs[1].chips", "0 is too few")).to_string();
        assert_eq!(line, "jobs[1].chips: 0 is too few (out_of_range)");
    }
}

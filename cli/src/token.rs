//! `chiptide token …`, `chiptide whoami` and `chiptide audit`: who may do what, and who did.

use crate::args::{Audit, Token};
use crate::failure::Failure;
use crate::list::{Filters, follow, given};
use crate::output::Out;
use crate::show;
use chiptide_api::Client;
use chiptide_api::access::TokenBody;
use chrono::{DateTime, SecondsFormat, Utc};

/// `chiptide token …`.
pub(crate) async fn run(command: Token, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        Token::Create { name, role, queues, node, expires_in } => {
            let body = TokenBody { name, role, queues, node, expires_in };
            let made = client.create_token(&body).await?;
            eprintln!("token {} (shown once, kept only as a hash):", made.about.id);
            out.print(&made, |made| made.token.clone())
        }
        Token::List { pages } => {
            let tokens = follow(Filters::new(), pages.max(), async |query| client.tokens(&query).await).await?;
            out.print(tokens.as_slice(), |tokens| show::tokens(tokens, Utc::now()))
        }
        Token::Revoke { id } => {
            let revoked = client.revoke_token(&id).await?;
            out.print(&revoked, |token| show::tokens(std::slice::from_ref(token), Utc::now()))
        }
    }
}

/// `chiptide whoami`.
pub(crate) async fn whoami(client: &Client, out: Out) -> Result<(), Failure> {
    out.print(&client.whoami().await?, show::whoami)
}

/// `chiptide audit`.
pub(crate) async fn audit(wanted: Audit, client: &Client, out: Out) -> Result<(), Failure> {
    let now = Utc::now();
    let since = wanted
        .since
        .and_then(|span| DateTime::from_timestamp_millis(now.timestamp_millis() - i64::try_from(span.0).ok()?));
    let from = since.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
    let filters = given([
        ("who", wanted.who),
        ("action", wanted.action),
        ("target", wanted.target),
        ("outcome", wanted.outcome),
        ("from", from),
    ]);
    let entries = follow(filters, wanted.pages.max(), async |query| client.audit(&query).await).await?;
    out.print(entries.as_slice(), show::audit)
}

//! Tokens and callers for people.

use super::Facts;
use crate::output::{table, text};
use crate::span::{ago, moment, until};
use chiptide_api::access::{AuditView, TokenView, WhoamiView};
use chrono::{DateTime, Utc};

/// A row a token.
pub(crate) fn tokens(tokens: &[TokenView], now: DateTime<Utc>) -> String {
    let mut rows = table(&["ID", "NAME", "ROLE", "FOR", "STATE", "LAST USED", "CREATED", "BY"]);
    for token in tokens {
        let bound = token.node.iter().chain(&token.queues).cloned().collect::<Vec<_>>().join(", ");
        rows.add_row([
            token.id.clone(),
            token.name.clone(),
            token.role.to_string(),
            bound,
            standing(token, now),
            token.last_used_at.map_or("never".into(), |at| format!("{} ago", ago(at, now))),
            format!("{} ago", ago(token.created_at, now)),
            token.created_by.clone().unwrap_or_default(),
        ]);
    }
    text(&rows)
}

fn standing(token: &TokenView, now: DateTime<Utc>) -> String {
    match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!("revoked {} ago", ago(at, now)),
        (None, Some(at)) if at <= now => format!("expired {} ago", ago(at, now)),
        (None, Some(at)) => format!("expires {}", until(at, now)),
        (None, None) => "in force".into(),
    }
}

/// A row a call.
pub(crate) fn audit(entries: &[AuditView]) -> String {
    let mut rows = table(&["AT", "WHO", "NAME", "ACTION", "TARGET", "OUTCOME", "CODE", "FROM", "REQUEST"]);
    for entry in entries {
        rows.add_row([
            entry.at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            if entry.who.is_empty() { "-".into() } else { entry.who.clone() },
            entry.name.clone(),
            entry.action.clone(),
            entry.target.clone().unwrap_or_default(),
            format!("{} ({})", entry.outcome, entry.status),
            entry.code.clone().unwrap_or_default(),
            entry.address.clone(),
            entry.request_id.clone(),
        ]);
    }
    text(&rows)
}

/// The caller.
pub(crate) fn whoami(me: &WhoamiView) -> String {
    let mut facts = Facts::new();
    facts.add("id", me.id.as_str());
    facts.add("name", me.name.as_str());
    facts.add("role", me.role.as_str());
    facts.add_some("queues", Some(me.queues.join(", ")).filter(|queues| !queues.is_empty()));
    facts.add_some("node", me.node.clone());
    facts.add_some("expires", me.expires_at.map(|at| moment(at, Utc::now())));
    facts.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_list_shows_which_tokens_are_void() {
        let json = serde_json::json!([
            {"id": "a1", "name": "platform", "role": "scheduler", "queues": ["ml", "ads"], "created_by": "root",
             "created_at": "2026-11-23T12:00:00Z", "last_used_at": "2026-11-24T11:59:30Z"},
            {"id": "b2", "name": "node", "role": "agent", "node": "n1", "created_at": "2026-11-24T10:00:00Z",
             "expires_at": "2026-11-24T13:00:00Z"},
            {"id": "c3", "name": "old", "role": "viewer", "created_at": "2026-11-24T10:00:00Z",
             "revoked_at": "2026-11-24T11:00:00Z"}
        ]);
        let list: Vec<TokenView> = serde_json::from_value(json).expect("tokens");
        let now = "2026-11-24T12:00:00Z".parse().expect("a moment");
        expect![[r#"
            ID  NAME      ROLE       FOR      STATE           LAST USED  CREATED  BY
            a1  platform  scheduler  ml, ads  in force        30s ago    1d ago   root
            b2  node      agent      n1       expires in 1h   never      2h ago
            c3  old       viewer              revoked 1h ago  never      2h ago
        "#]]
        .assert_eq(&tokens(&list, now));
    }
}

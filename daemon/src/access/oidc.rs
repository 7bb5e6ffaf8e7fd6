//! Bearer tokens of a site's own identity provider: JSON Web Tokens, checked against the issuer's keys. Issuer, audience
//! and algorithms are pinned: whatever a token says of itself, only RS256 and ES256 are tried, each with keys of its kind.

use super::identity::Identity;
use super::jwks::{Jwks, Unavailable};
use super::pace::Pace;
use crate::config::{Oidc as Config, OidcMap};
use chiptide_api::access::Role;
use chiptide_model::Timestamp;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long a token that was checked is not checked again: so long may a key that the issuer has withdrawn still open.
const CHECKED_FOR: Duration = Duration::from_secs(60);
/// Most tokens remembered as checked.
const CHECKED_MAX: usize = 10_000;
/// Longest token, bytes.
const TOKEN_MAX: usize = 16 * 1024;

type Claims = Map<String, Value>;

/// When a token was checked, and whose it is.
type Checked = (Instant, Arc<Identity>);

/// The issuer whose tokens are taken.
#[derive(Debug)]
pub struct Oidc {
    config: Config,
    keys: Jwks,
    /// By SHA-256 of the token.
    checked: Mutex<FxHashMap<[u8; 32], Checked>>,
}

impl Oidc {
    /// The issuer of this configuration, if it names one.
    pub fn new(config: &Config) -> anyhow::Result<Option<Oidc>> {
        if config.issuer.is_empty() {
            return Ok(None);
        }
        let keys = Jwks::new(&config.jwks_url, config.refresh_at_most_every)?;
        Ok(Some(Oidc { config: config.clone(), keys, checked: Mutex::default() }))
    }

    /// Whose token this is, if it is the issuer's, in force, and means a role here. Fails when the issuer's keys cannot be had.
    pub async fn identity(&self, token: &str, now: Timestamp) -> Result<Option<Arc<Identity>>, Unavailable> {
        if token.len() > TOKEN_MAX {
            return Ok(None);
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let checked = self.checked.lock().get(&digest).cloned();
        if let Some((at, who)) = checked
            && at.elapsed() < CHECKED_FOR
        {
            return Ok(Some(who).filter(|who| !who.is_void(now)));
        }
        let Some(claims) = self.check(token).await? else { return Ok(None) };
        let Some(who) = identity(&self.config, &claims) else { return Ok(None) };
        let who = Arc::new(who);
        let mut checked = self.checked.lock();
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(digest, (Instant::now(), who.clone()));
        Ok(Some(who))
    }

    async fn check(&self, token: &str) -> Result<Option<Claims>, Unavailable> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            tracing::debug!(alg = ?header.alg, "a token is signed in a way that is not taken");
            return Ok(None);
        }
        let Some(key) = self.keys.find(header.kid.as_deref(), header.alg).await? else { return Ok(None) };
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.config.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        match decode::<Claims>(token, &key, &validation) {
            Ok(data) => Ok(Some(data.claims)),
            Err(error) => {
                tracing::debug!(%error, "a token of the issuer is not taken");
                Ok(None)
            }
        }
    }
}

/// What the claims mean here: the first line of the map that fits gives the role; for a scheduler all lines that fit give
/// queues. `None` where no line fits.
fn identity(config: &Config, claims: &Claims) -> Option<Identity> {
    let subject = claims.get("sub")?.as_str().filter(|subject| !subject.is_empty())?;
    let expires_s = claims.get("exp")?.as_f64()? + config.leeway.as_secs_f64();
    let fits = |line: &&OidcMap| texts(claims, &line.claim).any(|value| value == line.value);
    let role = config.map.iter().find(fits)?.role;
    let mut queues = Vec::new();
    if role == Role::Scheduler {
        for line in config.map.iter().filter(|line| line.role == role).filter(fits) {
            queues.extend(line.queues.iter().cloned());
            queues.extend(texts(claims, &line.queues_claim).map(str::to_owned));
        }
        queues.sort();
        queues.dedup();
    }
    let name = texts(claims, &config.name_claim).next().unwrap_or(subject);
    Some(Identity {
        id: format!("oidc:{}", clean(subject)),
        name: clean(name),
        role,
        queues,
        node: None,
        expires_at: Some(Timestamp((expires_s * 1000.0) as i64)),
        pace: Pace::default(),
    })
}

/// The texts of a claim: itself, or the items of a list. `a.b` is `b` within `a`, unless there is a claim of that very name.
fn texts<'a>(claims: &'a Claims, path: &str) -> impl Iterator<Item = &'a str> {
    let found = claims.get(path).or_else(|| {
        let mut parts = path.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |at, part| at.get(part))
    });
    let (one, many) = match found {
        Some(Value::String(text)) => (Some(text.as_str()), None),
        Some(Value::Array(items)) => (None, Some(items)),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten().filter_map(Value::as_str))
}

/// What an issuer says, fit for a log and a table.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(value: &str, role: Role, queues: &[&str]) -> OidcMap {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        let (claim, queues_claim) = ("groups".to_owned(), "queues".to_owned());
        OidcMap { claim, value: value.into(), role, queues, queues_claim }
    }

    fn meant(claims: Value) -> Option<(Role, Vec<String>)> {
        let map = vec![
            line("ops", Role::Operator, &[]),
            line("ml", Role::Scheduler, &["training"]),
            line("ads", Role::Scheduler, &["ads"]),
            OidcMap { claim: "realm.roles".into(), ..line("boss", Role::Admin, &[]) },
        ];
        let config = Config { map, ..Config::default() };
        let mut claims = claims.as_object().expect("an object").clone();
        claims.extend([("sub".to_owned(), json!("u1")), ("exp".to_owned(), json!(1_000))]);
        identity(&config, &claims).map(|who| (who.role, who.queues))
    }

    #[test]
    fn claims_mean_roles_and_queues() {
        assert_eq!(meant(json!({"groups": ["x", "ops"]})), Some((Role::Operator, vec![])));
        assert_eq!(meant(json!({"groups": "ml"})), Some((Role::Scheduler, vec!["training".into()])));
        let both = meant(json!({"groups": ["ads", "ml"], "queues": ["extra"]}));
        assert_eq!(both, Some((Role::Scheduler, vec!["ads".into(), "extra".into(), "training".into()])));
        assert_eq!(meant(json!({"realm": {"roles": ["boss"]}})).map(|(role, _)| role), Some(Role::Admin));
        assert_eq!(meant(json!({"groups": ["nobody"]})), None);
    }
}

//! An issuer's public keys: fetched when first needed, again when they are old or a token names one that is not known, and
//! no oftener than a bound, so that strangers' tokens cannot make us hammer the issuer.

use anyhow::Context;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// After how long keys are fetched again: a key that the issuer has withdrawn opens nothing any more.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// How long the issuer may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// Largest set of keys, bytes.
const SET_MAX: usize = 1024 * 1024;

/// There are no keys: the issuer could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unavailable;

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: Arc<DecodingKey>,
}

#[derive(Debug, Default)]
struct Keys {
    keys: Vec<Key>,
    fetched: Option<Instant>,
}

/// The issuer's keys.
#[derive(Debug)]
pub struct Jwks {
    http: reqwest::Client,
    url: String,
    /// The least from one fetch to the next.
    gap: Duration,
    keys: RwLock<Keys>,
    /// When the last fetch was tried; held while one is under way.
    tried: Mutex<Option<Instant>>,
}

impl Jwks {
    /// Keys that are to be had at `url`.
    pub fn new(url: &str, gap: Duration) -> anyhow::Result<Jwks> {
        let http = reqwest::Client::builder().timeout(FETCH_LIMIT).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.context("make the client that asks the issuer for its keys")?;
        Ok(Jwks { http, url: url.to_owned(), gap, keys: RwLock::default(), tried: Mutex::default() })
    }

    /// The key of this id that signs in this way; without an id, the only one that does.
    pub async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<Arc<DecodingKey>>, Unavailable> {
        if let Some(key) = self.look(id, algorithm)
            && self.is_fresh()
        {
            return Ok(Some(key));
        }
        self.refresh().await;
        let found = self.look(id, algorithm);
        match found.is_none() && self.keys.read().fetched.is_none() {
            true => Err(Unavailable),
            false => Ok(found),
        }
    }

    fn is_fresh(&self) -> bool {
        self.keys.read().fetched.is_some_and(|at| at.elapsed() < FRESH_FOR)
    }

    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        let keys = self.keys.read();
        let mut fitting = keys.keys.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).map(|key| key.key.clone()),
            None => fitting.next().filter(|_| fitting.next().is_none()).map(|key| key.key.clone()),
        }
    }

    /// Fetches the keys, unless that was tried a moment ago. Those that were there stay when it fails.
    async fn refresh(&self) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < self.gap) {
            return;
        }
        *tried = Some(Instant::now());
        match self.fetch().await {
            Ok(set) => *self.keys.write() = Keys { keys: usable(&set), fetched: Some(Instant::now()) },
            Err(error) => tracing::warn!(url = self.url, "fetch the issuer's keys: {error:#}"),
        }
    }

    async fn fetch(&self) -> anyhow::Result<JwkSet> {
        let mut answer = self.http.get(&self.url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            anyhow::ensure!(bytes.len() + chunk.len() <= SET_MAX, "more than {SET_MAX} bytes of keys");
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).context("read the keys")
    }
}

/// The keys that can check what we take: RSA for RS256, P-256 for ES256. A shared secret is never a key here.
fn usable(set: &JwkSet) -> Vec<Key> {
    let usable = set.keys.iter().filter_map(|jwk| {
        if jwk.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            return None;
        }
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => return None,
        };
        let key = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
        Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
    });
    usable.collect()
}

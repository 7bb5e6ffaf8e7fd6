//! Tokens of an identity provider: a real one, as far as its keys go, that turns them over.

use crate::common::{Daemon, SOON};
use axum::routing::get;
use axum::{Json, Router};
use chiptide_api::Client;
use chiptide_api::access::Role;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An issuer that signs with one key at a time and publishes what it is told to.
struct Issuer {
    url: String,
    published: Arc<Mutex<JwkSet>>,
}

/// A key of the issuer.
struct Key {
    id: &'static str,
    secret: EncodingKey,
}

impl Key {
    fn new(id: &'static str) -> Key {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        Key { id, secret: EncodingKey::from_ec_der(&pair.serialize_der()) }
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.secret, Algorithm::ES256).expect("a public key");
        jwk.common.key_id = Some(self.id.into());
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.secret).expect("signed")
    }
}

impl Issuer {
    async fn start() -> Issuer {
        let published = Arc::new(Mutex::new(JwkSet { keys: Vec::new() }));
        let shown = published.clone();
        let routes = Router::new().route("/keys", get(async move || Json(shown.lock().clone())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Issuer { url, published }
    }

    fn publish(&self, keys: &[&Key]) {
        self.published.lock().keys = keys.iter().map(|key| key.public()).collect();
    }

    fn claims(&self, groups: &[&str]) -> Value {
        json!({"iss": self.url, "aud": "chiptide", "sub": "u-1", "preferred_username": "ann", "groups": groups,
            "exp": now_s() + 300})
    }

    async fn daemon(&self) -> Daemon {
        Daemon::with_config(&format!(
            "[oidc]\nissuer = {url:?}\naudience = \"chiptide\"\njwks_url = \"{url}/keys\"\nleeway = \"1s\"
             refresh_at_most_every = \"100ms\"
             [[oidc.map]]\nclaim = \"groups\"\nvalue = \"ops\"\nrole = \"operator\"
             [[oidc.map]]\nclaim = \"groups\"\nvalue = \"ml\"\nrole = \"scheduler\"\nqueues = [\"training\"]",
            url = self.url
        ))
        .await
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

async fn role(daemon: &Daemon, token: &str) -> Option<Role> {
    let client = Client::new(&daemon.base, token).expect("a client");
    client.whoami().await.ok().map(|me| me.role)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_tokens_are_taken_with_the_role_that_their_claims_mean() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1"));
    issuer.publish(&[&key]);
    let daemon = issuer.daemon().await;
    let client = Client::new(&daemon.base, &key.sign(&issuer.claims(&["x", "ml"]))).expect("a client");
    let me = client.whoami().await.expect("known");
    assert_eq!((me.id.as_str(), me.name.as_str(), me.role), ("oidc:u-1", "ann", Role::Scheduler));
    assert_eq!(me.queues, ["training"]);
    assert_eq!(role(&daemon, &key.sign(&issuer.claims(&["ops"]))).await, Some(Role::Operator));
    assert_eq!(role(&daemon, &key.sign(&issuer.claims(&["strangers"]))).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_quite_the_issuers_opens_nothing() {
    let (issuer, key, other) = (Issuer::start().await, Key::new("k1"), Key::new("k1"));
    issuer.publish(&[&key]);
    let daemon = issuer.daemon().await;
    let good = issuer.claims(&["ops"]);
    assert_eq!(role(&daemon, &key.sign(&good)).await, Some(Role::Operator));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (what, claims) in [
        ("another audience", with("aud", json!("other"))),
        ("another issuer", with("iss", json!("https://elsewhere.example"))),
        ("over", with("exp", json!(now_s() - 10))),
        ("not yet", with("nbf", json!(now_s() + 100))),
        ("no subject", with("sub", json!(""))),
    ] {
        assert_eq!(role(&daemon, &key.sign(&claims)).await, None, "{what}");
    }
    assert_eq!(role(&daemon, &other.sign(&good)).await, None, "signed by another with the same key id");
    // The two classics: no signature at all, and the public key taken for a shared secret.
    let [_, claims, _] =
        key.sign(&good).split('.').map(str::to_owned).collect::<Vec<_>>().try_into().expect("three parts");
    let none = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ";
    assert_eq!(role(&daemon, &format!("{none}.{claims}.")).await, None);
    let public = serde_json::to_vec(&key.public()).expect("JSON");
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    let forged = encode(&header, &good, &EncodingKey::from_secret(&public)).expect("signed");
    assert_eq!(role(&daemon, &forged).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_turned_over_are_fetched_when_a_token_names_them() {
    let (issuer, first, second) = (Issuer::start().await, Key::new("k1"), Key::new("k2"));
    issuer.publish(&[&first]);
    let daemon = issuer.daemon().await;
    assert_eq!(role(&daemon, &first.sign(&issuer.claims(&["ops"]))).await, Some(Role::Operator));
    issuer.publish(&[&second]);
    let token = second.sign(&issuer.claims(&["ops"]));
    let taken = tokio::time::timeout(SOON, async {
        while role(&daemon, &token).await != Some(Role::Operator) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    taken.await.expect("taken with the new key");
    let late = first.sign(&issuer.claims(&["ops", "late"]));
    assert_eq!(role(&daemon, &late).await, None, "the withdrawn key opens nothing new");
}

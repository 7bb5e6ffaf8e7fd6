//! Bearer tokens: `chiptide_<id>_<secret>`. The id finds the entry, the secret is compared by hash in constant time.

use super::identity::Identity;
use super::pace::Pace;
use crate::store::tokens::{self, TokenRow};
use crate::store::{Store, StoreError};
use crate::whole_file;
use anyhow::Context;
use chiptide_api::access::Role;
use chiptide_model::{NodeId, Timestamp};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;

const PREFIX: &str = "chiptide";

/// A token that is in force.
#[derive(Debug)]
struct Known {
    secret_sha256: Vec<u8>,
    version: i64,
    identity: Arc<Identity>,
    /// When it was last used, and when that was last written down, milliseconds; 0 for never.
    used: AtomicI64,
    written: AtomicI64,
}

/// A token just made: what its owner gets, and what is kept.
#[derive(Debug)]
pub struct Minted {
    /// The whole token.
    pub token: String,
    /// Its public part.
    pub id: String,
    /// SHA-256 of its secret part.
    pub secret_sha256: Vec<u8>,
}

/// The tokens in force.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Absent until they have been read.
    known: RwLock<Option<FxHashMap<String, Arc<Known>>>>,
    /// The turn to look in the table: one at a time, so that strangers cannot take up the database.
    looking: Mutex<()>,
}

impl Tokens {
    /// Reads every token in force from the database. Those that have not changed keep their pace and their last use.
    pub async fn load(&self, store: &Store) -> Result<(), StoreError> {
        let rows = tokens::in_force(&store.reader).await?;
        let mut known = self.known.write();
        let before = known.take().unwrap_or_default();
        let entry = |row: TokenRow| match before.get(&row.id).filter(|entry| entry.version == row.version) {
            Some(entry) => Some((row.id, entry.clone())),
            None => Some((row.id.clone(), Arc::new(Known::of(row)?))),
        };
        *known = Some(rows.into_iter().filter_map(entry).collect());
        Ok(())
    }

    /// Whether they have been read: before that, nobody can be told from a stranger.
    pub fn are_loaded(&self) -> bool {
        self.known.read().is_some()
    }

    /// Whose token this is, if it is one and in force at `now`.
    pub fn identity(&self, token: &str, now: Timestamp) -> Option<Arc<Identity>> {
        let (id, secret) = parts(token)?;
        let entry = self.known.read().as_ref()?.get(id)?.clone();
        let is_it = bool::from(hash(secret).as_slice().ct_eq(&entry.secret_sha256));
        if !is_it || entry.identity.is_void(now) {
            return None;
        }
        entry.used.store(now.0, Ordering::Relaxed);
        Some(entry.identity.clone())
    }

    /// The same. A token not known yet is looked for in the table: another daemon may have made it.
    pub async fn find(&self, pool: &PgPool, token: &str, now: Timestamp) -> Result<Option<Arc<Identity>>, StoreError> {
        let known = self.identity(token, now);
        let Some((id, _)) = parts(token).filter(|(id, _)| known.is_none() && is_id(id)) else { return Ok(known) };
        let _turn = self.looking.lock().await;
        if self.known.read().as_ref().is_some_and(|known| !known.contains_key(id))
            && let Some(row) = tokens::find_in_force(pool, id).await?
        {
            self.take_in(row);
        }
        Ok(self.identity(token, now))
    }

    /// A token that was just written down is in force here at once; elsewhere when it is looked for.
    pub fn take_in(&self, row: TokenRow) {
        let id = row.id.clone();
        if let Some(entry) = Known::of(row) {
            self.known.write().get_or_insert_default().insert(id, Arc::new(entry));
        }
    }

    /// A token that was just revoked is void here at once; elsewhere within [`super::keeping::EVERY`].
    pub fn forget(&self, id: &str) {
        if let Some(known) = self.known.write().as_mut() {
            known.remove(id);
        }
    }

    /// Last uses that are not written down yet. They count as written from now on.
    pub fn uses(&self) -> Vec<(String, Timestamp)> {
        let known = self.known.read();
        let news = known.iter().flatten().filter_map(|(id, entry)| {
            let used = entry.used.load(Ordering::Relaxed);
            (used > entry.written.swap(used, Ordering::Relaxed)).then(|| (id.clone(), Timestamp(used)))
        });
        news.collect()
    }

    /// Makes sure there is an admin token its owner can use: with a file, one that the file holds; without, one printed
    /// at the first start. Returns a newly made token, to be shown once.
    pub async fn ensure_admin(
        &self,
        store: &Store,
        file: Option<&Path>,
        now: Timestamp,
    ) -> anyhow::Result<Option<String>> {
        let is_admin = |token: &str| self.identity(token, now).is_some_and(|who| who.role == Role::Admin);
        let on_file = file.and_then(|file| std::fs::read_to_string(file).ok());
        if on_file.is_some_and(|token| is_admin(token.trim())) {
            return Ok(None);
        }
        if file.is_none() && self.has_admin(now) {
            return Ok(None);
        }
        let minted = mint();
        if let Some(file) = file {
            whole_file::write(file, &minted.token, 0o600)
                .with_context(|| format!("write the admin token to {}", file.display()))?;
        }
        let row = TokenRow { name: "first admin".into(), ..TokenRow::of(&minted, Role::Admin) };
        tokens::insert(&mut *store.reader.acquire().await.context("store the admin token")?, &row)
            .await
            .context("store the admin token")?;
        self.take_in(row);
        Ok(Some(minted.token))
    }

    fn has_admin(&self, now: Timestamp) -> bool {
        let known = self.known.read();
        known.iter().flatten().any(|(_, entry)| entry.identity.role == Role::Admin && !entry.identity.is_void(now))
    }
}

impl Known {
    /// Absent for a row that this version cannot read: such a token opens nothing.
    fn of(row: TokenRow) -> Option<Known> {
        let Some(role) = Role::named(&row.role) else {
            tracing::warn!(token.id = row.id, role = row.role, "a token with an unknown role opens nothing");
            return None;
        };
        let node = row.node.as_deref().map(NodeId::new).transpose().ok()?;
        let identity = Identity {
            id: row.id,
            name: row.name,
            role,
            queues: row.queues,
            node,
            expires_at: row.expires_at.map(chiptide_api::time::from_utc),
            pace: Pace::default(),
        };
        Some(Known {
            secret_sha256: row.secret_sha256,
            version: row.version,
            identity: Arc::new(identity),
            used: AtomicI64::new(0),
            written: AtomicI64::new(0),
        })
    }
}

/// A new token: 256 random bits behind a public part.
pub fn mint() -> Minted {
    let (id, secret) = (random_hex(6), random_hex(32));
    Minted { token: format!("{PREFIX}_{id}_{secret}"), secret_sha256: hash(&secret), id }
}

/// The public and the secret part of a text that has the form of a token.
pub fn parts(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')
}

/// Whether a text can be the public part of a token.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// SHA-256: enough for a secret of 256 random bits, which nobody guesses.
pub fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn random_hex(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(minted: &Minted) -> TokenRow {
        TokenRow { name: "ci".into(), ..TokenRow::of(minted, Role::Viewer) }
    }

    #[test]
    fn a_token_opens_until_it_is_void_or_revoked_and_no_other_secret_does() {
        let (tokens, minted, now) = (Tokens::default(), mint(), Timestamp(1_000));
        tokens.take_in(TokenRow { expires_at: Some(chiptide_api::time::to_utc(Timestamp(2_000))), ..row(&minted) });
        assert_eq!(tokens.identity(&minted.token, now).expect("known").role, Role::Viewer);
        assert!(tokens.identity(&format!("chiptide_{}_{}", minted.id, "0".repeat(64)), now).is_none());
        assert!(tokens.identity(&minted.token, Timestamp(2_000)).is_none(), "void from that moment on");
        tokens.forget(&minted.id);
        assert!(tokens.identity(&minted.token, now).is_none());
    }

    #[test]
    fn a_use_is_told_once_and_a_refused_try_is_none() {
        let (tokens, minted) = (Tokens::default(), mint());
        tokens.take_in(row(&minted));
        tokens.identity(&format!("{}0", minted.token), Timestamp(5));
        assert_eq!(tokens.uses(), []);
        tokens.identity(&minted.token, Timestamp(7)).expect("known");
        assert_eq!(tokens.uses(), [(minted.id.clone(), Timestamp(7))]);
        assert_eq!(tokens.uses(), []);
    }
}

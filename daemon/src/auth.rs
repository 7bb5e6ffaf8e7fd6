//! Bearer tokens: `chiptide_<id>_<secret>`. The id finds the row, the secret is compared by hash in constant time.

use crate::store::{Store, StoreError, tokens};
use crate::whole_file;
use anyhow::Context;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use std::path::Path;
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;

const PREFIX: &str = "chiptide";

/// Who a request comes from: the public part of its token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal(pub String);

/// The tokens that open the door.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Absent until they have been read.
    hashes: RwLock<Option<FxHashMap<String, Vec<u8>>>>,
    /// The turn to look in the table: one at a time, so that strangers cannot take up the database.
    looking: Mutex<()>,
}

impl Tokens {
    /// Reads every token from the database.
    pub async fn load(&self, store: &Store) -> Result<(), StoreError> {
        let rows = tokens::load(&store.reader).await?;
        *self.hashes.write() = Some(rows.into_iter().map(|row| (row.id, row.secret_sha256)).collect());
        Ok(())
    }

    /// Whether they have been read: before that, nobody can be told from a stranger.
    pub fn are_loaded(&self) -> bool {
        self.hashes.read().is_some()
    }

    /// Whose token this is, if it is one.
    pub fn principal(&self, token: &str) -> Option<Principal> {
        let (id, secret) = token.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let wanted = self.hashes.read().as_ref()?.get(id)?.clone();
        let is_it = bool::from(hash(secret).as_slice().ct_eq(&wanted));
        is_it.then(|| Principal(id.to_owned()))
    }

    /// Whose token this is, if it is one. One not known yet is looked for in the table: another daemon may have made it.
    pub async fn find(&self, pool: &PgPool, token: &str) -> Result<Option<Principal>, StoreError> {
        let known = self.principal(token);
        let id = token.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')?.split_once('_')).map(|(id, _)| id);
        let Some(id) = id.filter(|id| known.is_none() && is_id(id)) else { return Ok(known) };
        let _turn = self.looking.lock().await;
        if self.hashes.read().as_ref().is_some_and(|hashes| !hashes.contains_key(id))
            && let Some(row) = tokens::find(pool, id).await?
        {
            self.hashes.write().get_or_insert_default().insert(row.id, row.secret_sha256);
        }
        Ok(self.principal(token))
    }

    /// Makes sure there is an admin token its owner can use: with a file, one that the file holds; without, one printed
    /// at the first start. Returns a newly made token, to be shown once.
    pub async fn ensure_admin(&self, store: &Store, file: Option<&Path>) -> anyhow::Result<Option<String>> {
        let on_file = file.and_then(|file| std::fs::read_to_string(file).ok());
        if on_file.is_some_and(|token| self.principal(token.trim()).is_some()) {
            return Ok(None);
        }
        if file.is_none() && self.hashes.read().as_ref().is_some_and(|known| !known.is_empty()) {
            return Ok(None);
        }
        let (id, secret) = (random_hex(6), random_hex(32));
        let token = format!("{PREFIX}_{id}_{secret}");
        if let Some(file) = file {
            whole_file::write(file, &token, 0o600)
                .with_context(|| format!("write the admin token to {}", file.display()))?;
        }
        let hashed = hash(&secret);
        tokens::insert_admin(&store.reader, &id, &hashed).await.context("store the admin token")?;
        self.hashes.write().get_or_insert_default().insert(id, hashed);
        Ok(Some(token))
    }
}

/// Whether a text can be the public part of a token.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn random_hex(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

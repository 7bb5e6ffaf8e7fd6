//! Client certificates: one that the configured authority has signed speaks for the agent of the node it names. The
//! handshake has checked it; here it is read.

use super::identity::Identity;
use super::pace::Pace;
use chiptide_api::access::Role;
use chiptide_model::{NodeId, Timestamp};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Most certificates remembered as read.
const READ_MAX: usize = 50_000;

/// The certificates read so far.
#[derive(Debug, Default)]
pub struct Certificates {
    /// By SHA-256.
    read: Mutex<FxHashMap<[u8; 32], Arc<Identity>>>,
}

impl Certificates {
    /// Whose certificate this is, if it names a node and is in force at `now`.
    pub fn identity(&self, der: &[u8], now: Timestamp) -> Option<Arc<Identity>> {
        let digest: [u8; 32] = Sha256::digest(der).into();
        let known = self.read.lock().get(&digest).cloned();
        let who = match known {
            Some(known) => known,
            None => {
                let who = Arc::new(read(der)?);
                let mut read = self.read.lock();
                if read.len() >= READ_MAX {
                    read.clear();
                }
                read.insert(digest, who.clone());
                who
            }
        };
        Some(who).filter(|who| !who.is_void(now))
    }
}

/// The node is the first DNS name of the certificate; of one that has none, its common name.
fn read(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()?.map(|extension| &extension.value.general_names);
    let dns = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let node = NodeId::new(dns.or(common)?).ok()?;
    let ends_s = certificate.validity().not_after.timestamp();
    Some(Identity {
        id: format!("certificate:{node}"),
        name: format!("the agent of {node}"),
        role: Role::Agent,
        queues: Vec::new(),
        node: Some(node),
        expires_at: Some(Timestamp(ends_s.saturating_mul(1000))),
        pace: Pace::default(),
    })
}

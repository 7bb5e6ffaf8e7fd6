//! TLS with certificates made here: the daemon shows one, agents may show one.

use crate::common::{Daemon, registration};
use chiptide_api::access::Role;
use chiptide_api::{Client, ClientTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority with its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with this DNS name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "not the name that counts");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_speaks_for_its_node_and_a_token_for_its_role() {
    let (ca, foreign) = (Authority::new("ours"), Authority::new("not ours"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (cert, key) = ca.sign("localhost");
    let config = format!(
        "[tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\nca = {:?}",
        file("cert.pem", &cert),
        file("key.pem", &key),
        file("client-ca.pem", &ca.pem),
        file("ca.pem", &ca.pem)
    );
    let daemon = Daemon::with_config(&config).await;
    let base = daemon.base.replace("127.0.0.1", "localhost");
    assert!(base.starts_with("https://"), "{base}");
    let client = |token: &str, shown: Option<(String, String)>| {
        let identity = shown.map(|(cert, key)| format!("{cert}{key}").into_bytes());
        Client::with_tls(&base, token, ClientTls { ca: Some(ca.pem.clone().into()), identity }).expect("a client")
    };
    assert_eq!(client(&daemon.token, None).whoami().await.expect("by token").role, Role::Admin);
    let agent = client("", Some(ca.sign("n1")));
    let me = agent.whoami().await.expect("by certificate");
    assert_eq!((me.id.as_str(), me.role, me.node.as_deref()), ("certificate:n1", Role::Agent, Some("n1")));
    agent.register("n1", &registration("n1", 1)).await.expect("its node");
    let other = agent.register("n2", &registration("n2", 1)).await.expect_err("another node");
    assert_eq!(other.code(), Some("forbidden"));
    assert_eq!(client("", None).whoami().await.expect_err("nobody").code(), Some("unauthorized"));
    let stranger = client("", Some(foreign.sign("n1"))).whoami().await.expect_err("refused in the handshake");
    assert_eq!(stranger.code(), None, "{stranger}");
    let plain = Client::new(&base, &daemon.token).expect("a client").whoami().await;
    assert_eq!(plain.expect_err("who does not trust the authority asks nothing").code(), None);
}

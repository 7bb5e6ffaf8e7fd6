//! Finds the token and makes the client.

use crate::args::Daemon;
use crate::failure::Failure;
use crate::places;
use chiptide_api::{Client, ClientTls};
use std::path::Path;

/// A client of the daemon that the command line names.
pub(crate) fn client(daemon: &Daemon) -> Result<Client, Failure> {
    let token = match &daemon.token {
        Some(token) => token.trim().to_owned(),
        None => token_from_file()?,
    };
    let tls = ClientTls {
        ca: daemon.ca.as_deref().map(pem).transpose()?,
        identity: match (&daemon.cert, &daemon.key) {
            (Some(cert), Some(key)) => Some([pem(cert)?, pem(key)?].concat()),
            _ => None,
        },
    };
    Ok(Client::with_tls(&daemon.url, &token, tls)?)
}

/// The token of CHIPTIDE_TOKEN_FILE, else the one that `chiptide up` keeps, else none: a daemon may not ask for one.
fn token_from_file() -> Result<String, Failure> {
    if let Some(named) = std::env::var_os("CHIPTIDE_TOKEN_FILE").filter(|name| !name.is_empty()) {
        return read(Path::new(&named)).map_err(|error| {
            Failure::Usage(format!("CHIPTIDE_TOKEN_FILE: cannot read {}: {error}", Path::new(&named).display()))
        });
    }
    let kept = places::data_dir().ok().and_then(|dir| read(&dir.join(places::TOKEN_FILE)).ok());
    Ok(kept.unwrap_or_default())
}

fn pem(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// A token file's only line.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

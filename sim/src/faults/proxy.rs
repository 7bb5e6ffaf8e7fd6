//! A proxy of the run's own, between agents and clients and the daemon, or between the daemon and Postgres: the kernels of
//! many machines cannot delay, cut or repeat what they carry, so this does.

use anyhow::Context;
use rand::RngExt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long a connection that repeats another's words is kept for its answer, which nobody reads.
const ECHO_FOR: Duration = Duration::from_secs(2);

/// What becomes of the connections, old and new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Weather {
    /// All is carried.
    #[default]
    Clear,
    /// All is carried late.
    Slow,
    /// Questions are carried; when an answer comes, the connection is closed instead.
    Cut,
    /// Half of an answer is carried, then the connection is closed.
    Stump,
    /// Nothing is carried and nobody is told: both ends have an open connection. Closed when the weather changes.
    Deaf,
    /// Whatever is asked is asked once more, on a connection of its own.
    Twice,
}

/// Where a proxy carries to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Upstream {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Upstream::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Upstream::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

/// A running proxy. Dropping it closes its listener; connections under way end with it.
#[derive(Debug)]
pub struct Proxy {
    weather: watch::Sender<Weather>,
    upstream: watch::Sender<Upstream>,
    listening: JoinHandle<()>,
    address: Option<SocketAddr>,
}

impl Proxy {
    /// Listens on a free port of this address.
    pub async fn tcp(host: &str, upstream: Upstream) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind((host, 0)).await.with_context(|| format!("listen on {host}"))?;
        let address = listener.local_addr().context("read the proxy's address")?;
        let (weather, upstream) = (watch::Sender::new(Weather::Clear), watch::Sender::new(upstream));
        let (w, u) = (weather.clone(), upstream.clone());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Small messages should not wait for one another.
                let _ = client.set_nodelay(true);
                tokio::spawn(carry(Box::new(client), u.borrow().clone(), w.subscribe()));
            }
        });
        Ok(Proxy { weather, upstream, listening, address: Some(address) })
    }

    /// Listens on a Unix socket.
    pub fn unix(path: &Path, upstream: Upstream) -> anyhow::Result<Proxy> {
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        let (weather, upstream) = (watch::Sender::new(Weather::Clear), watch::Sender::new(upstream));
        let (w, u) = (weather.clone(), upstream.clone());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(Box::new(client), u.borrow().clone(), w.subscribe()));
            }
        });
        Ok(Proxy { weather, upstream, listening, address: None })
    }

    /// Where it listens, as a URL; of a Unix socket there is none.
    pub fn url(&self) -> Option<String> {
        self.address.map(|address| format!("http://{address}"))
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Carries new connections elsewhere.
    pub fn turn_to(&self, upstream: Upstream) {
        self.upstream.send_if_modified(|now| {
            let turns = *now != upstream;
            *now = upstream;
            turns
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn carry(client: Box<dyn Stream>, upstream: Upstream, weather: watch::Receiver<Weather>) {
    // A daemon that is not there: the client sees its connection closed, as it would without us.
    let Ok(server) = upstream.connect().await else { return };
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    tokio::select! {
        _ = asks(from_client, to_server, &upstream, weather.clone()) => {}
        _ = answers(from_server, to_client, weather) => {}
    }
}

async fn asks(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    upstream: &Upstream,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let now = *weather.borrow();
        match now {
            Weather::Deaf => return until_it_changes(&mut weather).await,
            Weather::Slow => dawdle().await,
            Weather::Twice => drop(tokio::spawn(say_again(upstream.clone(), bytes[..count].to_vec()))),
            Weather::Clear | Weather::Cut | Weather::Stump => {}
        }
        to.write_all(&bytes[..count]).await?;
    }
}

async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let now = *weather.borrow();
        match now {
            Weather::Deaf => return until_it_changes(&mut weather).await,
            Weather::Cut => return Ok(()),
            Weather::Stump => return to.write_all(&bytes[..count / 2]).await,
            Weather::Slow => dawdle().await,
            Weather::Clear | Weather::Twice => {}
        }
        to.write_all(&bytes[..count]).await?;
    }
}

async fn until_it_changes(weather: &mut watch::Receiver<Weather>) -> io::Result<()> {
    // A sender that is gone takes the connection with it.
    let _ = weather.wait_for(|weather| *weather != Weather::Deaf).await;
    Ok(())
}

async fn dawdle() {
    let ms = rand::rng().random_range(20..250);
    sleep(Duration::from_millis(ms)).await;
}

async fn say_again(upstream: Upstream, bytes: Vec<u8>) -> io::Result<()> {
    let mut server = upstream.connect().await?;
    server.write_all(&bytes).await?;
    let mut answer = vec![0; 4096];
    let read = async {
        while server.read(&mut answer).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(ECHO_FOR, read).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// A server that answers every byte with the same byte, and a connection to it through a proxy in this weather.
    async fn echo(weather: Weather) -> (Proxy, TcpStream, watch::Receiver<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (heard, count) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        heard.send_modify(|heard| *heard += 1);
                        let _ = stream.write_all(&byte).await;
                    }
                });
            }
        });
        let proxy = Proxy::tcp("127.0.0.1", Upstream::Tcp(address)).await.expect("a proxy");
        proxy.set(weather);
        let to = proxy.address.expect("an address");
        (proxy, TcpStream::connect(to).await.expect("connected"), count)
    }

    #[tokio::test]
    async fn in_clear_and_slow_weather_all_is_carried() {
        for weather in [Weather::Clear, Weather::Slow] {
            let (_proxy, mut stream, _) = echo(weather).await;
            stream.write_all(b"x").await.expect("sent");
            assert_eq!(stream.read_u8().await.expect("answered"), b'x');
        }
    }

    #[tokio::test]
    async fn a_cut_connection_has_carried_the_question() {
        let (_proxy, mut stream, mut heard) = echo(Weather::Cut).await;
        stream.write_all(b"x").await.expect("sent");
        heard.wait_for(|heard| *heard == 1).await.expect("heard");
        assert!(stream.read_u8().await.is_err(), "closed without an answer");
    }

    #[tokio::test]
    async fn what_is_asked_twice_is_heard_twice_and_answered_once() {
        let (_proxy, mut stream, mut heard) = echo(Weather::Twice).await;
        stream.write_all(b"x").await.expect("sent");
        assert_eq!(stream.read_u8().await.expect("answered"), b'x');
        heard.wait_for(|heard| *heard == 2).await.expect("heard again");
    }

    #[tokio::test]
    async fn a_deaf_connection_stays_open_until_the_weather_changes_and_never_carries_what_was_said() {
        let (weather, seen) = watch::channel(Weather::Deaf);
        let (nowhere, mut heard) = (Upstream::Unix("nowhere".into()), Vec::new());
        {
            let mut asks = std::pin::pin!(asks(&b"x"[..], &mut heard, &nowhere, seen));
            assert!(asks.as_mut().now_or_never().is_none(), "open, and deaf");
            weather.send_replace(Weather::Clear);
            asks.await.expect("closed");
        }
        assert!(heard.is_empty());
    }
}

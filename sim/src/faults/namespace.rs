//! A network namespace of a node's own, reached over a pair of virtual interfaces: its routes can be cut, one way or both. Making
//! one takes root and `ip`; where that may not be there is none, and the node is reached over the loopback, where the proxies cut.

use anyhow::{Context, ensure};
use std::process::Command;

/// Which way nothing gets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// What the node says vanishes.
    Outward,
    /// What it is told vanishes: its reports arrive, and are acted on.
    Inward,
    /// Both.
    Both,
}

/// A namespace. Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    link: String,
    outside: String,
    inside: String,
}

impl Namespace {
    /// Makes one; `None` where that is not permitted.
    pub fn make(index: usize) -> anyhow::Result<Option<Namespace>> {
        let run: u16 = rand::random();
        // A /30 of the private range for each: two addresses, one at each end.
        let (net, base) = (format!("10.{}.{}", 213 + run % 40, run >> 8), (index % 60) * 4);
        let made = Namespace {
            name: format!("chiptide-{run:04x}-{index}"),
            link: format!("ct{run:04x}-{index}"),
            outside: format!("{net}.{}", base + 1),
            inside: format!("{net}.{}", base + 2),
        };
        if ip(&["netns", "add", &made.name]).is_err() {
            // Not made, so nothing to remove.
            std::mem::forget(made);
            return Ok(None);
        }
        let (name, link, inner) = (&made.name, &made.link, &format!("{}i", made.link));
        ip(&["link", "add", link, "type", "veth", "peer", "name", inner, "netns", name])?;
        ip(&["addr", "add", &format!("{}/30", made.outside), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", made.inside), "dev", inner])?;
        ip(&["-n", name, "link", "set", inner, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(Some(made))
    }

    /// Our address at its other end.
    pub fn outside(&self) -> &str {
        &self.outside
    }

    /// The words before a command that run it inside.
    pub fn enter(&self) -> [String; 2] {
        ["nsenter".into(), format!("--net=/run/netns/{}", self.name)]
    }

    /// Cuts it off.
    pub fn cut(&self, cut: Cut) -> anyhow::Result<()> {
        self.route(cut, "add").context("cut a node off")
    }

    /// Undoes a cut.
    pub fn heal(&self, cut: Cut) -> anyhow::Result<()> {
        self.route(cut, "del").context("heal the way to a node")
    }

    fn route(&self, cut: Cut, verb: &str) -> anyhow::Result<()> {
        let out = format!("{}/32", self.outside);
        let inward = format!("{}/32", self.inside);
        match cut {
            Cut::Outward => ip(&["-n", &self.name, "route", verb, "blackhole", &out]),
            Cut::Inward => ip(&["route", verb, "blackhole", &inward]),
            Cut::Both => ip(&["link", "set", &self.link, if verb == "add" { "down" } else { "up" }]),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = ip(&["link", "del", &self.link]).and_then(|()| ip(&["netns", "del", &self.name]));
        if let Err(error) = removed {
            eprintln!("could not remove the namespace {}: {error:#}", self.name);
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(words).output().context("run ip")?;
    ensure!(done.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

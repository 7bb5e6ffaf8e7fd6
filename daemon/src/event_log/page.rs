//! The past, page by page, for those who do not watch.

use super::directory::{Directory, Numbered};
use super::filter::Filter;
use crate::render;
use crate::shared::Shared;
use crate::store::{Result, events};
use chiptide_api::event::EventView;
use sqlx::PgPool;

/// A part of the log.
#[derive(Debug)]
pub struct Past {
    /// The events of it that fit.
    pub events: Vec<EventView>,
    /// The position it ends at; `None` at the end of the log.
    pub next: Option<u64>,
}

/// Most positions that one page looks at: of a log in which little fits, a page may hold less than it could.
const LOOKED_MAX: i64 = 10_000;

/// The events after a position that fit, at most `limit`.
pub async fn read_page(
    pool: &PgPool,
    shared: &Shared,
    mut position: u64,
    limit: usize,
    filter: &Filter,
) -> Result<Past> {
    let (mut found, mut looked, mut directory) = (Vec::new(), 0, Directory::default());
    let step = if filter.is_open() { limit as i64 + 1 } else { 1000 };
    loop {
        let read = events::read(pool, position, step).await?;
        let is_end = (read.len() as i64) < step;
        let each: Vec<Numbered<'_>> = read.iter().map(|(seq, at, event)| (*seq, *at, event)).collect();
        directory.learn(&each, shared, pool).await?;
        for (seq, at, event) in each {
            let about = directory.about(event);
            if filter.fits(event.kind(), &about) {
                if found.len() == limit {
                    return Ok(Past { events: found, next: Some(position) });
                }
                found.push(render::event(seq, at, event, about));
            }
            position = seq;
        }
        looked += step;
        if is_end {
            return Ok(Past { events: found, next: None });
        }
        if looked >= LOOKED_MAX {
            return Ok(Past { events: found, next: Some(position) });
        }
    }
}

//! Cursor paging: every list answers a page and, when there is more, a cursor for the next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Items of a page when the request names no `limit`.
pub const PAGE_DEFAULT: u32 = 100;
/// Most items a page may hold.
pub const PAGE_MAX: u32 = 500;

/// One page of a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Pass as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

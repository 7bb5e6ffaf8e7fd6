//! Lists, page after page, and the commands that are little more than a list.

use crate::args::{Chip, Node};
use crate::failure::Failure;
use crate::output::Out;
use crate::show;
use chiptide_api::access::JoinTokenBody;
use chiptide_api::node::DrainBody;
use chiptide_api::page::{PAGE_MAX, Page};
use chiptide_api::{Client, ClientError};
use chrono::Utc;

/// Query parameters.
pub(crate) type Filters = Vec<(&'static str, String)>;

/// `chiptide node …`.
pub(crate) async fn node(command: Node, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        Node::List { state, pages } => {
            let nodes =
                follow(given([("state", state)]), pages.max(), async |query| client.nodes(&query).await).await?;
            out.print(nodes.as_slice(), |nodes| show::nodes(nodes, Utc::now()))
        }
        Node::JoinToken { node, expires_in } => {
            let made = client.create_join_token(&JoinTokenBody { node, expires_in }).await?;
            eprintln!("good once, until {}; give it to the agent as CHIPTIDE_AGENT_JOIN_TOKEN:", made.expires_at);
            out.print(&made, |made| made.join_token.clone())
        }
        Node::Get { id } => out.print(&client.node(&id).await?, |node| show::node(node, Utc::now())),
        Node::Cordon { id, reason } => {
            out.print(&client.cordon(&id, &reason).await?, |node| show::node(node, Utc::now()))
        }
        Node::Drain { id, reason, within } => {
            out.print(&client.drain(&id, &DrainBody { reason, within }).await?, |node| show::node(node, Utc::now()))
        }
        Node::Uncordon { id, reason } => {
            out.print(&client.uncordon(&id, &reason).await?, |node| show::node(node, Utc::now()))
        }
    }
}

/// `chiptide chip …`.
pub(crate) async fn chip(command: Chip, client: &Client, out: Out) -> Result<(), Failure> {
    let (node, device_class, state, pages) = match command {
        Chip::List { node, device_class, state, pages } => (node, device_class, state, pages),
        Chip::Get { id } => return out.print(&client.chip(&id).await?, show::chip),
        Chip::Quarantine { id, reason } => {
            return out.print(&client.quarantine_chip(&id, &reason).await?, show::chip);
        }
        Chip::Release { id, reason } => return out.print(&client.release_chip(&id, &reason).await?, show::chip),
    };
    let filters = given([("node", node), ("device_class", device_class), ("state", state)]);
    let chips = follow(filters, pages.max(), async |query| client.chips(&query).await).await?;
    out.print(chips.as_slice(), show::chips)
}

/// The filters that were given.
pub(crate) fn given<const N: usize>(filters: [(&'static str, Option<String>); N]) -> Filters {
    filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Follows a list's cursor until `max` items are there or no more come. Says on stderr when there are more.
pub(crate) async fn follow<T>(
    filters: Filters,
    max: usize,
    page: impl AsyncFn(Filters) -> Result<Page<T>, ClientError>,
) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    while items.len() < max {
        let mut query = filters.clone();
        let wanted = (max - items.len()).min(PAGE_MAX as usize);
        query.push(("limit", wanted.to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let got = page(query).await?;
        items.extend(got.items);
        match got.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    if cursor.is_some() || items.len() > max {
        eprintln!("(there are more; --all shows them)");
    }
    items.truncate(max);
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of the numbers below `total`, at most 4 a page, whatever is asked for.
    async fn numbers(query: Filters, total: u32) -> Result<Page<u32>, ClientError> {
        let value = |wanted: &str| query.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.parse::<u32>());
        let from = value("cursor").map_or(0, |cursor| cursor.expect("a number"));
        let limit = value("limit").expect("a limit").expect("a number").min(4);
        let to = (from + limit).min(total);
        Ok(Page { items: (from..to).collect(), next_cursor: (to < total).then(|| to.to_string()) })
    }

    #[tokio::test]
    async fn pages_are_followed_up_to_the_limit() {
        let ask = async |total, max| {
            let got = follow(Filters::new(), max, async |query| numbers(query, total).await).await;
            got.expect("numbers").len()
        };
        assert_eq!(ask(10, usize::MAX).await, 10);
        assert_eq!(ask(10, 7).await, 7);
        assert_eq!(ask(0, 7).await, 0);
        assert_eq!(ask(10, 0).await, 0);
    }
}

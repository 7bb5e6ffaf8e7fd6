//! What an XID means: the shipped table, and an override file that replaces rows. Bad rows name their line and column.

use chiptide_model::FaultClass;
use std::collections::BTreeMap;
use std::fmt;

/// The shipped table.
const SHIPPED: &str = include_str!("../../data/xid_actions.csv");
const HEADER: &str = "xid,class,mnemonic,description";
/// No driver counts higher; an override for more is a typing error.
const XID_MAX: u32 = 9_999;

/// What to do about an XID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A fault of this class.
    Class(FaultClass),
    /// Whatever recovery the driver asks for.
    Query,
}

/// A row that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableError {
    /// The line, from 1.
    pub line: usize,
    /// The column's name.
    pub column: &'static str,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.detail)
    }
}
impl std::error::Error for TableError {}

/// What XIDs mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XidTable {
    rows: BTreeMap<u32, (Action, String)>,
}

impl XidTable {
    /// The shipped table.
    pub fn shipped() -> Result<XidTable, TableError> {
        Ok(XidTable { rows: parse(SHIPPED)? })
    }

    /// This, with the rows of an override file in place of its own.
    pub fn overridden(mut self, text: &str) -> Result<XidTable, TableError> {
        self.rows.extend(parse(text)?);
        Ok(self)
    }

    /// What to do about an XID, and what it says. A code that is not listed takes its one chip out of service.
    pub fn action(&self, xid: u32) -> (Action, &str) {
        let unlisted = (Action::Class(FaultClass::Unknown), "not in the table of XIDs");
        self.rows.get(&xid).map_or(unlisted, |(action, text)| (*action, text))
    }
}

fn parse(text: &str) -> Result<BTreeMap<u32, (Action, String)>, TableError> {
    let mut rows = BTreeMap::new();
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        None => return Ok(rows),
        Some((_, HEADER)) => {}
        Some((line, _)) => {
            return Err(TableError { line, column: "xid", detail: format!("the first row must be {HEADER}") });
        }
    }
    for (line, row) in lines {
        let (xid, action, text) = parse_row(line, row)?;
        if rows.insert(xid, (action, text)).is_some() {
            return Err(TableError { line, column: "xid", detail: format!("XID {xid} is listed twice") });
        }
    }
    Ok(rows)
}

fn parse_row(line: usize, row: &str) -> Result<(u32, Action, String), TableError> {
    let wrong = |column: &'static str, detail: String| TableError { line, column, detail };
    let mut fields = row.split(',').map(str::trim);
    let xid = fields.next().unwrap_or_default();
    let xid = xid.parse::<u32>().ok().filter(|xid| *xid <= XID_MAX);
    let xid = xid.ok_or_else(|| wrong("xid", format!("not a number from 0 to {XID_MAX}")))?;
    let action = match fields.next().ok_or_else(|| wrong("class", "is missing".into()))? {
        "query" => Action::Query,
        // Foreign processes are no XIDs.
        "foreign" => return Err(wrong("class", "\"foreign\" is no class of an XID".into())),
        word => Action::Class(word.parse().map_err(|error| wrong("class", format!("{error}, query")))?),
    };
    let mnemonic = fields.next().ok_or_else(|| wrong("mnemonic", "is missing".into()))?;
    let description = fields.next().unwrap_or_default();
    if fields.next().is_some() {
        return Err(wrong("description", "the row goes on after it: no commas within a field".into()));
    }
    let text = if matches!(description, "" | "Unused") { mnemonic } else { description };
    Ok((xid, action, text.chars().take(200).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, &'static str) {
        let error = XidTable::shipped().expect("valid").overridden(text).expect_err("a bad row");
        (error.line, error.column)
    }

    #[test]
    fn the_shipped_table_knows_the_usual_ones() {
        let table = XidTable::shipped().expect("valid");
        let class = |xid| match table.action(xid).0 {
            Action::Class(class) => class.as_str(),
            Action::Query => "query",
        };
        let known = [(31, "job"), (45, "ignore"), (48, "reset"), (63, "reset_at_idle"), (74, "link"), (79, "node")];
        known.iter().for_each(|(xid, wanted)| assert_eq!(class(*xid), *wanted, "XID {xid}"));
        assert_eq!([class(54), class(154), class(162), class(4_242)], ["human", "query", "record", "unknown"]);
        assert!(table.rows.len() > 150);
    }

    #[test]
    fn an_override_replaces_rows_and_leaves_the_others() {
        let table = XidTable::shipped().expect("valid");
        let table = table.overridden("# ours\nxid,class,mnemonic,description\n31,ignore,OURS,\n").expect("valid");
        assert_eq!(table.action(31), (Action::Class(FaultClass::Ignore), "OURS"));
        assert_eq!(table.action(79).0, Action::Class(FaultClass::Node));
    }

    #[test]
    fn a_bad_row_is_named_with_its_line_and_column() {
        let head = "xid,class,mnemonic,description\n";
        assert_eq!(wrong("31,ignore,X,\n"), (1, "xid"));
        assert_eq!(wrong(&format!("{head}31,ignore,X,\nabc,job,X,\n")), (3, "xid"));
        assert_eq!(wrong(&format!("{head}31,fatal,X,\n")), (2, "class"));
        assert_eq!(wrong(&format!("{head}31\n")), (2, "class"));
        assert_eq!(wrong(&format!("{head}31,job,X,a,b\n")), (2, "description"));
        assert_eq!(wrong(&format!("{head}31,job,X,\n31,job,X,\n")), (3, "xid"));
    }
}

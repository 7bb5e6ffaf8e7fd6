//! Spoiled bytes: cut, changed, doubled, with others put in.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One thing done to bytes.
#[derive(Clone, Debug)]
enum Edit {
    /// Nothing from here on.
    Cut(Index),
    /// A byte with some of its bits turned.
    Turn(Index, u8),
    /// Bytes put in.
    Insert(Index, Vec<u8>),
    /// Bytes up to here said twice.
    Double(Index),
    /// A run of bytes left out.
    Drop(Index, u8),
}

impl Edit {
    fn on(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Edit::Cut(at) => bytes.truncate(place(at)),
            Edit::Turn(at, bits) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Edit::Turn(..) => {}
            Edit::Insert(at, more) => drop(bytes.splice(place(at)..place(at), more.iter().copied())),
            Edit::Double(at) => bytes.extend_from_within(..place(at)),
            Edit::Drop(at, count) => {
                let from = place(at);
                bytes.drain(from..(from + usize::from(*count)).min(bytes.len()));
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let odd: Vec<Vec<u8>> =
        ["\0", "\u{feff}", "\u{202e}", "\r\n", "\"", "{", "]", ",", "-", "e999", "99999999999999999999"]
            .map(|text| text.as_bytes().to_vec())
            .into_iter()
            .chain([vec![0xff, 0xfe], vec![0xc3], vec![b'['; 300], vec![b'(', b' ', b')']])
            .collect();
    prop_oneof![
        any::<Index>().prop_map(Edit::Cut),
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Edit::Turn(at, bits)),
        (any::<Index>(), select(odd)).prop_map(|(at, more)| Edit::Insert(at, more)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, more)| Edit::Insert(at, more)),
        any::<Index>().prop_map(Edit::Double),
        (any::<Index>(), any::<u8>()).prop_map(|(at, count)| Edit::Drop(at, count)),
    ]
}

/// Bytes near one of these documents, and now and then bytes that are near nothing.
pub fn bytes_near(documents: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let near = (select(documents), vec(edit(), 0..5)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| edit.on(&mut bytes));
        bytes
    });
    prop_oneof![8 => near, 1 => vec(any::<u8>(), 0..200)]
}

/// The same where the reader is given text: what is no UTF-8 is replaced.
pub fn text_near(documents: Vec<String>) -> impl Strategy<Value = String> {
    let documents = documents.into_iter().map(String::into_bytes).collect();
    bytes_near(documents).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_take_any_bytes_and_an_empty_document_too() {
        crate::check(500, bytes_near(vec![Vec::new(), b"abc".to_vec()]), |bytes| {
            prop_assert!(bytes.len() < 100_000);
            Ok(())
        });
    }
}

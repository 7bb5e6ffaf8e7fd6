//! Who may do what. A request is identified once, by its bearer token; what its role allows is looked up in one table
//! (`routes/rules.rs`); what belongs to others is kept from it in one layer (`routes/guard.rs`).

pub mod certificates;
pub mod identity;
pub mod jwks;
pub mod keeping;
pub mod oidc;
pub mod pace;
pub mod rights;
pub mod tokens;

pub use identity::{Identity, Who};
pub use rights::Right;
pub use tokens::Tokens;

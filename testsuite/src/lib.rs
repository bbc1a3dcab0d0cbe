//! What the tests share: text tests, random numbers and random graphs. See ARCHITECTURE.md.

pub mod rng;
pub mod text;

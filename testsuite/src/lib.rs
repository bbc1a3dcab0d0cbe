//! What the tests share: text tests, random numbers and random graphs. See ARCHITECTURE.md.

pub mod differential;
pub mod fuzz;
pub mod native;
pub mod plant;
pub mod rng;
pub mod smith;
pub mod text;
pub mod tools;

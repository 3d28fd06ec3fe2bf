//! From results to text: pure functions that do no input or output, and the only place where numbers are rounded.

mod table;

pub use table::{columns, invocations};

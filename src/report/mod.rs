//! From results to text: functions that neither open nor print anything, and the only place where numbers are rounded.

mod table;

pub use table::{columns, invocations, measurement};

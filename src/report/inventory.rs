//! What is on this machine and who needs it, for people.

use crate::local::FoundResource;
use crate::units::Bytes;

use super::columns;
use super::deployment::{row, short};
use super::table::UNKNOWN;

/// A row for each thing; nothing where there is none.
pub fn inventory(items: &[FoundResource]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(["kind", "name", "id", "standing", "state", "age", "size", "why"])];
    for item in items {
        // The id of a function or a volume is its name; of a package it is where it is.
        let id = match item.id.strip_prefix("sha256:").unwrap_or(&item.id) {
            id if id == item.name => UNKNOWN.to_string(),
            id if id.starts_with('/') => id.to_string(),
            id => short(id),
        };
        let network = item.network.as_ref().map(|name| format!(", on network `{name}`")).unwrap_or_default();
        rows.push(vec![
            item.kind.name().to_string(),
            item.name.clone(),
            id,
            item.standing.to_string(),
            item.state.clone().unwrap_or(UNKNOWN.to_string()),
            item.age_s.map_or(UNKNOWN.to_string(), age),
            item.size_bytes.map_or(UNKNOWN.to_string(), |bytes| Bytes(bytes).to_string()),
            item.reason.clone() + &network,
        ]);
    }
    columns(&rows)
}

/// A line for each bucket and table.
pub fn stored(buckets: &[String], tables: &[String]) -> String {
    let line = |kind: &str, name: &String| format!("{kind} {name}\n");
    let buckets = buckets.iter().map(|name| line("bucket", name));
    buckets.chain(tables.iter().map(|name| line("table", name))).collect()
}

/// In the largest unit that it has two of: `90 min`, `47 h`.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_shown_in_the_unit_that_fits() {
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_800].map(age),
            ["0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]
        );
    }

    #[test]
    fn buckets_and_tables_have_a_line_each() {
        assert_eq!(stored(&["b".to_string()], &["t".to_string()]), "bucket b\ntable t\n");
        assert_eq!(inventory(&[]), "");
    }
}

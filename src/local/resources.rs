//! What sets the names of one user's resources apart from those of others: the resources id.

use crate::cache::Cache;
use crate::error::Result;
use crate::files;

/// The resources id, `local-<8 hexadecimal digits>`: the one that is configured, else that of the cache, else one that is
/// made up and recorded there.
///
/// # Errors
/// The cache's record cannot be read or written.
pub fn resources_id(configured: Option<&str>, cache: &Cache) -> Result<String> {
    match configured {
        Some(id) => Ok(id.to_string()),
        None => cache.resource("local", "resources_id", || format!("local-{}", files::random_hex(8))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::files::TempFolder;

    #[test]
    fn an_id_is_made_once_and_a_configured_one_wins() {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let id = resources_id(None, &cache).unwrap();
        let digits = id.strip_prefix("local-").unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert_eq!(resources_id(None, &cache).unwrap(), id);
        assert_eq!(resources_id(Some("local-mine"), &cache).unwrap(), "local-mine");
        assert_eq!(resources_id(None, &cache).unwrap(), id);
    }
}

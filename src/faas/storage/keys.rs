//! What the key of an object means to those who read it as a path.

use std::path::PathBuf;

/// The key as the most tidy of storages keeps it: some drop empty parts and `.`, and take a backslash for a slash.
pub(super) fn plain(key: &str) -> String {
    let parts = key.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

/// The path below a folder that a key names; `None`: it names none, or one outside.
pub(super) fn path_below(key: &str) -> Option<PathBuf> {
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    key.split('/').all(is_name).then(|| PathBuf::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_storage_may_take_for_one_another_are_the_same_plain_key() {
        for key in ["a/b", "a//b", "a/./b", "/a/b", "a\\b", "./a/b"] {
            assert_eq!(plain(key), "a/b", "{key}");
        }
        assert_ne!(plain("a/b"), plain("a/../b"));
    }

    #[test]
    fn only_a_path_below_the_folder_is_one() {
        for key in ["a", "a/b", "a b/…", "a/..b", "a\\..\\b"] {
            assert_eq!(path_below(key), Some(PathBuf::from(key)));
        }
        for key in ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b", "a\0"] {
            assert_eq!(path_below(key), None, "{key}");
        }
    }
}

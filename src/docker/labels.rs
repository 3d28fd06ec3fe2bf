//! Asks the engine for what has some labels, and holds its answer to that.
//!
//! What several labels in one filter mean differs between engines: Docker lists what has all of them, Podman 4.3 the
//! volumes that have any and no image, and it refuses a filter without a label. So the engine is asked for one label, and
//! the others are looked for here: what a sweep removes must never depend on it.

use std::collections::BTreeMap;

use serde_json::json;

use super::call::{Call, MISSING};
use crate::error::{Error, Result};

/// How often a list is asked for again.
const RETRIES: usize = 20;

/// What a list is made of.
pub(super) trait Labelled {
    fn labels(&self) -> &BTreeMap<String, String>;
}

/// Asks for what has the first of these labels, `name` or `name=value` each; without any, for all.
pub(super) fn filter<'a>(call: Call<'a>, labels: &[&str]) -> Result<Call<'a>> {
    match labels.first() {
        Some(label) => call.query_json("filters", &json!({ "label": [label] })),
        None => Ok(call),
    }
}

/// Asks until it is told: Podman 4.3 gives up a list when something on it is removed meanwhile.
pub(super) fn listed<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 0..RETRIES {
        match ask() {
            Err(error) if is_disturbed(&error) => log::debug!("{error}: asking again"),
            outcome => return outcome,
        }
    }
    ask()
}

fn is_disturbed(error: &Error) -> bool {
    let text = error.to_string();
    MISSING.iter().any(|words| text.ends_with(words))
}

/// Those of a list that have all these labels.
pub(super) fn with_all<T: Labelled>(listed: Vec<T>, labels: &[&str]) -> Vec<T> {
    listed.into_iter().filter(|one| labels.iter().all(|label| has(one.labels(), label))).collect()
}

fn has(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Labelled for BTreeMap<String, String> {
        fn labels(&self) -> &BTreeMap<String, String> {
            self
        }
    }

    #[test]
    fn only_what_has_all_labels_is_left_whatever_the_engine_lists() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let run = labels(&[("ours", "1"), ("lifetime", "run")]);
        let kept = labels(&[("ours", "1"), ("lifetime", "kept"), ("file", "/a=b")]);
        let all = || vec![run.clone(), kept.clone(), labels(&[])];
        assert_eq!(with_all(all(), &["ours=1", "lifetime=run"]), std::slice::from_ref(&run));
        assert_eq!(with_all(all(), &["ours", "file=/a=b"]), std::slice::from_ref(&kept));
        assert_eq!(with_all(all(), &["ours"]), [run.clone(), kept.clone()]);
        assert_eq!(with_all(all(), &["our"]).len(), 0);
        assert_eq!(with_all(all(), &[]).len(), 3);
    }

    #[test]
    fn a_list_that_was_disturbed_is_asked_for_again_and_no_other() {
        let asked = std::cell::Cell::new(0);
        let ask = |failures: usize, text: &str| {
            asked.set(0);
            let text = text.to_string();
            listed(|| {
                asked.set(asked.get() + 1);
                if asked.get() > failures { Ok(()) } else { Err(Error::new(text.clone())) }
            })
        };
        let gone = "retrieving parent of image \"e8\": locating image with ID \"e8\": image not known";
        assert!(ask(3, gone).is_ok() && asked.get() == 4);
        assert!(ask(99, gone).is_err() && asked.get() == RETRIES + 1);
        assert!(ask(1, "no space left").is_err() && asked.get() == 1);
    }
}

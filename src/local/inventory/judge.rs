//! Who needs a thing in the engine, by its labels and by the file that they name.

use std::collections::BTreeMap;
use std::path::Path;

use super::Standing;
use crate::docker::{Lifetime, Liveness, Owner};
use crate::files;

/// What a file says of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// It names it.
    Yes,
    /// It is there and does not.
    No,
    /// There is no such file.
    Gone,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// Looks into a file, be it of a deployment, of storage or of the cache: all of them have whole ids and names in them.
pub(super) fn look_into(file: &Path, name: &str) -> Named {
    match files::read_bytes(file) {
        Ok(content) if contains(&content, name) => Named::Yes,
        Ok(_) => Named::No,
        Err(error) if error.is_not_found() => Named::Gone,
        Err(error) => Named::Unreadable(error.to_string()),
    }
}

fn contains(content: &[u8], name: &str) -> bool {
    !name.is_empty() && content.windows(name.len()).any(|window| window == name.as_bytes())
}

/// Judges a thing by its labels; `look_into` is asked whether the file they name names it.
///
/// Whether its owner lives is asked first: whatever a command that is dead then was to write is written.
pub(super) fn judge(
    labels: &BTreeMap<String, String>,
    liveness_of: &dyn Fn(&Owner) -> Liveness,
    look_into: &dyn Fn(&Path) -> Named,
) -> (Standing, String) {
    let Some((owner, lifetime)) = Owner::from_labels(labels).zip(Lifetime::from_labels(labels)) else {
        return (Standing::Unknown, "its labels are not whole".to_string());
    };
    let pid = owner.pid;
    match (liveness_of(&owner), lifetime) {
        (Liveness::Alive, _) => (Standing::InUse, format!("process {pid}, which made it, runs")),
        (Liveness::Unknown, _) => {
            let text =
                format!("whether process {pid} of host `{}`, which made it, runs cannot be told", owner.host);
            (Standing::Unknown, text)
        }
        (Liveness::Dead, Lifetime::Run) => {
            (Standing::Leftover, format!("it was made for process {pid}, which is dead"))
        }
        (Liveness::Dead, Lifetime::Kept { file }) => {
            let shown = file.display();
            match look_into(&file) {
                Named::Yes => (Standing::Kept, format!("`{shown}` names it")),
                Named::No => (Standing::Orphan, format!("`{shown}` does not name it")),
                Named::Gone => (Standing::Orphan, format!("`{shown}` is gone, or was moved")),
                Named::Unreadable(why) => (Standing::Unknown, why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Access, TempFolder};

    fn judged(lifetime: &Lifetime, liveness: Liveness, named: Named) -> Standing {
        let labels = Owner::current().unwrap().labels(lifetime);
        judge(&labels, &|_| liveness, &|_| named.clone()).0
    }

    #[test]
    fn only_what_nobody_can_need_is_left_over() {
        let kept = Lifetime::Kept { file: "/d.json".into() };
        let any = || Named::Gone;
        for lifetime in [&Lifetime::Run, &kept] {
            assert_eq!(judged(lifetime, Liveness::Alive, any()), Standing::InUse);
            assert_eq!(judged(lifetime, Liveness::Unknown, any()), Standing::Unknown);
        }
        assert_eq!(judged(&Lifetime::Run, Liveness::Dead, any()), Standing::Leftover);
        assert_eq!(judged(&kept, Liveness::Dead, Named::Yes), Standing::Kept);
        assert_eq!(judged(&kept, Liveness::Dead, Named::No), Standing::Orphan);
        assert_eq!(judged(&kept, Liveness::Dead, Named::Gone), Standing::Orphan);
        assert_eq!(judged(&kept, Liveness::Dead, Named::Unreadable("no".into())), Standing::Unknown);
        let mut labels = Owner::current().unwrap().labels(&Lifetime::Run);
        labels.remove("sebs-lite.session");
        assert_eq!(judge(&labels, &|_| Liveness::Dead, &|_| Named::Gone).0, Standing::Unknown);
    }

    #[test]
    fn a_file_names_what_stands_in_it_whole() {
        let folder = TempFolder::create().unwrap();
        let file = folder.path().join("d.json");
        assert_eq!(look_into(&file, "abc"), Named::Gone);
        files::write(&file, br#"{"instance_id": "abc"}"#, Access::Owner).unwrap();
        assert_eq!(look_into(&file, "abc"), Named::Yes);
        assert_eq!(look_into(&file, "abd"), Named::No);
        assert_eq!(look_into(&file, ""), Named::No);
        // A folder in its place cannot be read; that is no reason to think that it was removed.
        assert!(matches!(look_into(folder.path(), "abc"), Named::Unreadable(_)));
    }
}

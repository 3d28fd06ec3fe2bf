//! Images for people: what each is called, how large it is, and what became of it.

use serde::Serialize;

use crate::faas::FunctionImage;
use crate::units::Bytes;

use super::columns;
use super::deployment::{row, short};

/// What a command did to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// `run` for what functions run on, `function` for what one is baked into.
    pub kind: &'static str,
    /// Its name.
    pub image: String,
    /// Its id, `sha256:…`.
    pub image_id: String,
    /// Bytes of all its layers.
    pub size_bytes: u64,
    /// Digest of what the registry has, `sha256:…`; `None`: it is in none, or that was not asked.
    pub digest: Option<String>,
    /// What became of it, in words: `built and pushed`.
    pub state: String,
}

impl ImageReport {
    /// Of an image that a benchmark is baked into.
    pub fn of_function(image: &FunctionImage) -> ImageReport {
        ImageReport {
            kind: "function",
            image: image.uri.clone(),
            image_id: image.id.clone(),
            size_bytes: image.size_bytes,
            digest: image.digest.clone(),
            state: state(image).to_string(),
        }
    }
}

/// One line on the image that a benchmark is baked into.
pub fn function_image(image: &FunctionImage) -> String {
    format!("{} ({}, {})\n", image.uri, Bytes(image.size_bytes), state(image))
}

/// A table of images.
pub fn images(images: &[ImageReport]) -> String {
    let mut rows = vec![row(["image", "id", "size", "state"])];
    rows.extend(images.iter().map(|image| {
        let id = short(image.image_id.trim_start_matches("sha256:"));
        vec![image.image.clone(), id, Bytes(image.size_bytes).to_string(), image.state.clone()]
    }));
    columns(&rows)
}

fn state(image: &FunctionImage) -> &'static str {
    match (image.rebuilt, image.pushed) {
        (true, true) => "built and pushed",
        (true, false) => "built",
        (false, true) => "unchanged, pushed",
        (false, false) => "unchanged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_with_its_size_and_what_became_of_it() {
        let image = FunctionImage {
            uri: "127.0.0.1:5000/f:x".to_string(),
            id: "sha256:0123456789abcdef".to_string(),
            size_bytes: 86_900_000,
            digest: None,
            rebuilt: true,
            pushed: true,
        };
        assert_eq!(function_image(&image), "127.0.0.1:5000/f:x (86.9 MB, built and pushed)\n");
        let table = images(&[ImageReport::of_function(&FunctionImage { rebuilt: false, ..image })]);
        assert!(table.contains("0123456789ab ") && table.contains("unchanged, pushed"), "{table}");
    }
}

//! What a [`Local`] is told of the sampling of its instances' memory, in SeBS's words.

use std::path::Path;
use std::time::Duration;

use super::Local;
use crate::probe::Output;

impl Local {
    /// Is memory sampled? That of a [`Deployment`](super::Deployment) is by a process of its own, which `Local` does not
    /// know of.
    pub fn measurements_enabled(&self) -> bool {
        self.options().measure.is_some()
    }

    /// From one sample to the next; `None`: memory is not sampled, which SeBS writes as -1.
    pub fn measure_interval(&self) -> Option<Duration> {
        self.options().measure.as_ref().map(|options| options.interval)
    }

    /// The file that samples are written to; `None`: there is none, or memory is not sampled.
    pub fn measurement_path(&self) -> Option<&Path> {
        match &self.options().measure.as_ref()?.output {
            Output::Stream(file) | Output::Sebs(file) => Some(file),
            Output::Memory | Output::Summary => None,
        }
    }
}

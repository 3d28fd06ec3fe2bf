//! How often a function is invoked, and how often at a time.

/// Invocations that are alike, for [`System::invoke_many`](super::System::invoke_many).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load<'a> {
    /// The JSON object that each invocation is given.
    pub payload: &'a str,
    /// How many invocations there are in all.
    pub count: u32,
    /// How many of them are under way at a time, at most; at least one is.
    pub concurrency: u32,
    /// What each needs of its instance.
    pub start: StartKind,
}

/// What an invocation needs of its instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartKind {
    /// One that is there and idle, else one more.
    #[default]
    Any,
    /// One that has served none before, for itself alone. That it was a cold start is what the function server says; an
    /// invocation of which it does not say so has failed.
    Cold,
}

//! Waits until the server of an instance answers, and sees what somebody does to its container meanwhile.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::docker::{ContainerInspect, log_tail};
use crate::error::{Error, Kind, Result};
use crate::http;

use super::container::Starter;
use super::whereabouts::loss;

/// How soon an instance is asked again whether it answers: at first, and at most. Asking faster than each 1 to 2 ms
/// gains nothing; asking more slowly would add to each start's time, unless it takes long anyway.
const POLL_FIRST: Duration = Duration::from_millis(1);
const POLL_SOON: Duration = Duration::from_millis(2);
const POLL_LAST: Duration = Duration::from_millis(50);

/// How long an instance is asked often.
const SOON: Duration = Duration::from_secs(2);

/// How long an address may be out of reach, rather than refuse, until it is taken for unreachable from this host.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(1);

/// How a process ends by SIGKILL, and by SIGTERM, which no server does by itself.
const KILLED: [i64; 2] = [137, 143];

/// Why an instance did not come up.
#[derive(Debug)]
pub(super) enum Setback {
    /// Somebody killed, removed or disconnected its container: another may come up.
    Disturbed(Error),
    /// Another would fare no better.
    Lasting(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Setback {
        Setback::Lasting(error)
    }
}

impl Setback {
    pub(super) fn into_error(self) -> Error {
        match self {
            Setback::Disturbed(error) | Setback::Lasting(error) => error,
        }
    }
}

impl Starter {
    /// Waits until a server answers.
    ///
    /// # Errors
    /// It does not in time, or cannot any more.
    pub(super) fn wait_until_ready(&self, id: &str, name: &str, address: SocketAddr) -> Result<()> {
        self.come_up(id, name, address).map_err(Setback::into_error)
    }

    /// Asks `/alive` until there is any HTTP answer: SeBS's Node.js server answers 404.
    pub(super) fn come_up(&self, id: &str, name: &str, address: SocketAddr) -> Result<(), Setback> {
        let begin = Instant::now();
        let deadline = begin.after(self.options.start_timeout);
        let mut pause = POLL_FIRST;
        let mut next_look = begin.after(POLL_LAST);
        let mut unreachable_since = None;
        let mut is_paused = false;
        loop {
            if answers(address, self.options.start_timeout, &self.cancel)? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next_look {
                let inspected = self.inspect(id, name)?;
                if !inspected.state.running {
                    return Err(self.died(&inspected));
                }
                // First, since an address that it has lost is no sign of one that cannot be reached.
                if let Some(why) = loss(&inspected, address, &inspected.state.started_at) {
                    let text =
                        format!("container `{name}` lost its address {address} before it answered: {why}");
                    return Err(Setback::Disturbed(Error::new(text)));
                }
                is_paused = inspected.state.paused;
                if is_unreachable(address) {
                    let since = *unreachable_since.get_or_insert(now);
                    if now.since(since) >= UNREACHABLE_AFTER {
                        let text =
                            format!("container `{name}` cannot be reached at {address} from this host");
                        return Err(Error::with_kind(Kind::NotFound, text).into());
                    }
                } else {
                    unreachable_since = None;
                }
                next_look = Instant::now().after(POLL_LAST);
            }
            if now >= deadline {
                let waited = self.options.start_timeout.as_secs_f64();
                let because = if is_paused { ": it is paused" } else { "" };
                let text = format!(
                    "the function server in container `{name}` did not answer within {waited} s{because}"
                );
                return Err(Error::with_kind(Kind::Timeout, text + &self.log_tail(id)).into());
            }
            std::thread::sleep(pause);
            let most = if now.since(begin) < SOON { POLL_SOON } else { POLL_LAST };
            pause = (pause * 2).min(most);
        }
    }

    /// As the engine does; but that it is gone is no sign of an address that cannot be reached.
    pub(super) fn inspect(&self, id: &str, name: &str) -> Result<ContainerInspect, Setback> {
        self.engine.inspect_container(id).map_err(|error| match error.is_not_found() {
            true => {
                Setback::Disturbed(Error::new(format!("container `{name}` was removed before it answered")))
            }
            false => error.into(),
        })
    }

    pub(super) fn died(&self, inspected: &ContainerInspect) -> Setback {
        let code = inspected.state.exit_code;
        let text = format!("container `{}` ended with exit code {code} before it answered", inspected.name);
        let error = Error::new(text + &self.log_tail(&inspected.id));
        match KILLED.contains(&code) && !inspected.state.oom_killed {
            true => Setback::Disturbed(error),
            false => Setback::Lasting(error),
        }
    }

    fn log_tail(&self, id: &str) -> String {
        log_tail(&self.engine.without_cancel(), id)
    }
}

/// Does a function server give any HTTP answer at this address?
///
/// # Errors
/// `is_cancelled` alone.
pub(crate) fn answers(address: SocketAddr, limit: Duration, cancel: &Cancel) -> Result<bool> {
    // The server's one thread may be busy with its own start.
    let total = Duration::from_secs(2).min(limit);
    http::answers(address, "/alive", (Duration::from_millis(250), total), cancel)
}

/// Does a connection neither stand nor get refused?
fn is_unreachable(address: SocketAddr) -> bool {
    use std::io::ErrorKind;
    match TcpStream::connect_timeout(&address, Duration::from_millis(250)) {
        Ok(_) => false,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
    }
}

//! Turns SIGINT, SIGTERM and SIGHUP into a cancel token, so that a command ends after its clean-up.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use sebs_lite::cancel::Cancel;

static RECEIVED: AtomicU8 = AtomicU8::new(0);
static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The first of those signals that came, by its number.
pub(crate) fn received() -> Option<u8> {
    Some(RECEIVED.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Installs the handlers; the token is triggered by the first signal, and further ones change nothing: clean-up is
/// bounded in time. SIGHUP stays ignored where it is, under `nohup`; SIGINT does not, which a shell's script ignores for what
/// it starts in the background, and which is then sent on purpose.
pub(crate) fn install() -> Cancel {
    let flag = FLAG.get_or_init(Arc::default).clone();
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        #[expect(
            unsafe_code,
            reason = "a handler may only do what is async-signal-safe: ours sets two atomics"
        )]
        let previous = unsafe { sigaction(signal, &action) };
        if let Ok(previous) = previous
            && signal == Signal::SIGHUP
            && matches!(previous.handler(), SigHandler::SigIgn)
        {
            #[expect(unsafe_code, reason = "gives the signal back the disposition it had")]
            let _ = unsafe { sigaction(signal, &previous) };
        }
    }
    Cancel::from_flag(flag)
}

extern "C" fn note(signal: i32) {
    let _ = RECEIVED.compare_exchange(0, signal as u8, Ordering::Relaxed, Ordering::Relaxed);
    if let Some(flag) = FLAG.get() {
        flag.store(true, Ordering::Relaxed);
    }
}

//! What decides which call of the file system fails, and how.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device does not answer (EIO); any call may meet it.
    Broken,
    /// There is no room (ENOSPC); only calls that need some meet it.
    Full,
    /// Half of a write is done; its caller must notice.
    Short,
}

/// What a call does, as far as faults distinguish calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Reads, removes, syncs: needs no room.
    Frugal,
    /// Makes an entry or lets a file grow.
    Growing,
    /// Writes bytes.
    Writing,
}

impl Fault {
    fn meets(self, call: Call) -> bool {
        match self {
            Self::Broken => true,
            Self::Full => call != Call::Frugal,
            Self::Short => call == Call::Writing,
        }
    }
}

/// When calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) fault: Fault,
    /// The number of the first call that fails, counted from 0 among those that the fault can meet.
    pub(crate) first: u64,
    /// How many fail, from that one on.
    pub(crate) count: u64,
    /// Only calls of this name, as [`Switch::strikes`] has it; any where there is none.
    pub(crate) only: Option<&'static str>,
}

/// Names of calls that a script may be about.
const NAMES: [&str; 1] = ["sync"];

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {} {}", self.fault, self.first, self.count, self.only.unwrap_or("any"))
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no script: {text}");
        let [fault, first, count, only] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let fault = match fault {
            "Broken" => Fault::Broken,
            "Full" => Fault::Full,
            "Short" => Fault::Short,
            _ => return Err(wrong()),
        };
        let number = |text: &str| text.parse().map_err(|_| wrong());
        let only = NAMES.into_iter().find(|name| *name == only);
        Ok(Self { fault, first: number(first)?, count: number(count)?, only })
    }
}

#[derive(Debug, Default)]
struct State {
    script: Option<Script>,
    seen: u64,
    struck: u64,
    /// What the first call that failed was.
    what: &'static str,
}

/// Where the script is set, and where the file system reads it.
#[derive(Debug, Default)]
pub(crate) struct Switch(Mutex<State>);

impl Switch {
    /// From now on calls are counted, and fail as `script` says.
    pub(crate) fn arm(&self, script: Script) {
        *self.0.lock().expect("no panic before") = State { script: Some(script), ..State::default() };
    }

    /// The fault is over. Says how many calls have failed, and of how many.
    pub(crate) fn heal(&self) -> String {
        let mut state = self.0.lock().expect("no panic before");
        let State { script, seen, struck, what } = std::mem::take(&mut *state);
        let script = script.map(|script| script.to_string()).unwrap_or_default();
        format!("{struck} of {seen} calls have failed ({script}), first: {what}")
    }

    /// How the call `what`, which is about to be made, fails; none if it does not.
    pub(crate) fn strikes(&self, call: Call, what: &'static str) -> Option<Fault> {
        let mut state = self.0.lock().expect("no panic before");
        let concerned = |script: &Script| script.fault.meets(call) && script.only.is_none_or(|only| only == what);
        let script = state.script.filter(concerned)?;
        let number = state.seen;
        state.seen += 1;
        if number < script.first || number - script.first >= script.count {
            return None;
        }
        if state.struck == 0 {
            state.what = what;
        }
        state.struck += 1;
        Some(script.fault)
    }
}

//! Which devices a group may use.
//!
//! The rules are applied one after the other to a state, as the devices controller of version 1
//! does: whether everything is allowed, and the exceptions from that. Version 1 is told the
//! rules one by one; for version 2 the resulting state becomes a BPF program.

use std::os::fd::BorrowedFd;

use silo_oci::runtime::LinuxDeviceCgroup;
use silo_sys::bpf;

use crate::controller::Controller;
use crate::error::Error;
use crate::group::Cgroup;
use crate::hierarchy::Version;
use crate::limits::invalid;

/// Block or character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Char,
}

/// Bits of access as in `struct bpf_cgroup_dev_ctx`.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

/// A rule that is understood. No number stands for every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// One step of a list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Everything is allowed, or denied; earlier steps are forgotten.
    All(bool),
    One(Rule),
}

/// What a list of rules comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    allow: bool,
    /// With `allow` what is denied, else what is allowed.
    exceptions: Vec<Rule>,
}

fn steps(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::with_capacity(rules.len());
    for rule in rules {
        let number = |value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| invalid("device number", value, "it is out of range")),
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let mut access = 0;
        for letter in rule.access.as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => {
                    let text = rule.access.as_deref().unwrap_or_default();
                    return Err(invalid("device access", text, "it has more than r, w and m"));
                }
            };
        }
        if access == 0 {
            access = ALL;
        }
        let kinds: &[Kind] = match rule.kind.as_deref().unwrap_or_default() {
            "" | "a" if (major, minor, access) == (None, None, ALL) => {
                steps.push(Step::All(rule.allow));
                continue;
            }
            // The kernel would take this for everything; what is meant is both kinds.
            "" | "a" => &[Kind::Block, Kind::Char],
            "b" => &[Kind::Block],
            "c" | "u" => &[Kind::Char],
            kind => return Err(invalid("device type", kind, "it is not a, b or c")),
        };
        for &kind in kinds {
            steps.push(Step::One(Rule { allow: rule.allow, kind, major, minor, access }));
        }
    }
    // What comes before a step about everything has no effect.
    if let Some(at) = steps.iter().rposition(|step| matches!(step, Step::All(_))) {
        steps.drain(..at);
    }
    Ok(steps)
}

impl State {
    /// What the steps come to, from a group that may use everything.
    fn new(steps: &[Step]) -> Self {
        let mut state = Self { allow: true, exceptions: Vec::new() };
        for step in steps {
            match *step {
                Step::All(allow) => state = Self { allow, exceptions: Vec::new() },
                Step::One(rule) => state.one(rule),
            }
        }
        state
    }

    fn one(&mut self, rule: Rule) {
        let same = |known: &Rule| {
            (known.kind, known.major, known.minor) == (rule.kind, rule.major, rule.minor)
        };
        let known = self.exceptions.iter_mut().find(|known| same(known));
        if rule.allow == self.allow {
            // Takes an exception back, of just this device.
            if let Some(known) = known {
                known.access &= !rule.access;
            }
            self.exceptions.retain(|known| known.access != 0);
        } else {
            match known {
                Some(known) => known.access |= rule.access,
                None => self.exceptions.push(rule),
            }
        }
    }

    /// Whether the program would let everything through.
    fn is_open(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }
}

/// Registers: the context comes in 1, the answer goes out in 0.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The program for a state, of type `BPF_PROG_TYPE_CGROUP_DEVICE`: returns 1 to allow.
fn program(state: &State) -> Vec<bpf::Instruction> {
    use bpf::Instruction as I;
    let mut code = vec![
        // access_type has the kind in its low half and the access in its high one.
        I::load_word(ACCESS, CONTEXT, 0),
        I::copy(KIND, ACCESS),
        I::and(KIND, 0xffff),
        I::shift_right(ACCESS, 16),
        I::load_word(MAJOR, CONTEXT, 4),
        I::load_word(MINOR, CONTEXT, 8),
    ];
    for rule in &state.exceptions {
        let mut tests = vec![I::jump_unless_equal(
            KIND,
            match rule.kind {
                Kind::Block => 1,
                Kind::Char => 2,
            },
        )];
        if rule.access != ALL {
            tests.push(I::copy(SCRATCH, ACCESS));
            if state.allow {
                // One denied kind of access is enough to deny.
                tests.push(I::and(SCRATCH, rule.access));
                tests.push(I::jump_if_equal(SCRATCH, 0));
            } else {
                // Every kind that is asked for must be allowed.
                tests.push(I::and(SCRATCH, ALL & !rule.access));
                tests.push(I::jump_unless_equal(SCRATCH, 0));
            }
        }
        tests.extend(rule.major.map(|major| I::jump_unless_equal(MAJOR, major)));
        tests.extend(rule.minor.map(|minor| I::jump_unless_equal(MINOR, minor)));
        let end = tests.len() + 2;
        for (at, test) in tests.iter_mut().enumerate() {
            test.set_jump(i16::try_from(end - at - 1).unwrap_or(i16::MAX));
        }
        code.extend(tests);
        code.push(I::set(ANSWER, u32::from(!state.allow)));
        code.push(I::exit());
    }
    code.push(I::set(ANSWER, u32::from(state.allow)));
    code.push(I::exit());
    code
}

/// A rule as version 1 wants it written: the file and the line.
fn v1_line(step: &Step) -> (&'static str, String) {
    let file = |allow| if allow { "devices.allow" } else { "devices.deny" };
    match step {
        Step::All(allow) => (file(*allow), "a".to_owned()),
        Step::One(rule) => {
            let kind = match rule.kind {
                Kind::Block => 'b',
                Kind::Char => 'c',
            };
            let number =
                |value: Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
            let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
                .into_iter()
                .filter(|(bit, _)| rule.access & bit != 0)
                .map(|(_, letter)| letter)
                .collect();
            let line = format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
            (file(rule.allow), line)
        }
    }
}

impl Cgroup {
    /// Puts device rules in force. An engine that is not root of the machine cannot, and does
    /// not need to: it cannot make devices either.
    pub(crate) fn apply_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
        let steps = steps(rules)?;
        if steps.is_empty() {
            return Ok(());
        }
        let v1 =
            self.hierarchy_of(Controller::Devices).filter(|&at| self.version(at) == Version::V1);
        if let Some(at) = v1 {
            let Some(directory) = self.ensure_at(at)? else { return Ok(()) };
            return self.devices_v1(at, directory, &steps);
        }
        let Some(at) = self.unified() else { return Ok(()) };
        let Some(directory) = self.ensure_at(at)? else { return Ok(()) };
        self.devices_v2(at, directory, &State::new(&steps))
    }

    fn devices_v1(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        steps: &[Step],
    ) -> Result<(), Error> {
        for step in steps {
            let (file, line) = v1_line(step);
            self.write_in(at, directory, file, &line)?;
        }
        Ok(())
    }

    /// Sets rules by a program in the hierarchy of version 2, whichever else there is.
    #[cfg(test)]
    pub(crate) fn device_program(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        rules: &[LinuxDeviceCgroup],
    ) -> Result<(), Error> {
        self.devices_v2(at, directory, &State::new(&steps(rules)?))
    }

    fn devices_v2(&self, at: usize, directory: BorrowedFd<'_>, state: &State) -> Result<(), Error> {
        let failed = |operation, source| Error::DeviceFilter {
            path: self.directory_path(at),
            operation,
            source,
        };
        if state.is_open() {
            return match bpf::detach_devices(directory) {
                Err(error) if !refused(&error) => Err(failed("detach", error)),
                _ => Ok(()),
            };
        }
        let program = match bpf::load_devices(&program(state)) {
            Err(error) if refused(&error) => return Ok(()),
            program => program.map_err(|error| failed("load", error))?,
        };
        bpf::replace_devices(directory, &program).map_err(|error| failed("attach", error))
    }
}

/// Whether an operation failed for lack of privilege, and this is no root of the machine.
fn refused(error: &std::io::Error) -> bool {
    let denied = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    denied && !machine_root()
}

/// Whether this process is root in the first user namespace.
fn machine_root() -> bool {
    rustix::process::geteuid().is_root()
        && fs_err::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        kind: &str,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> LinuxDeviceCgroup {
        let text = |text: &str| Some(text.to_owned());
        LinuxDeviceCgroup { allow, kind: text(kind), major, minor, access: text(access) }
    }

    /// What a state means; that the program means the same is tested with the kernel.
    fn allowed(state: &State, kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let reference = |rule: &Rule| {
            let kinds = match rule.kind {
                Kind::Block => 1,
                Kind::Char => 2,
            };
            let numbers = rule.major.is_none_or(|number| number == major)
                && rule.minor.is_none_or(|number| number == minor);
            let wanted =
                if state.allow { rule.access & access != 0 } else { access & !rule.access == 0 };
            kinds == kind && numbers && wanted
        };
        state.exceptions.iter().any(reference) != state.allow
    }

    #[test]
    fn rules_add_up_as_in_version_1() {
        let state = |rules: &[LinuxDeviceCgroup]| State::new(&steps(rules).unwrap());
        let docker = state(&[
            rule(true, "c", Some(9), Some(9), "rwm"),
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", None, None, "m"),
            rule(true, "b", Some(-1), Some(-1), "m"),
            rule(true, "c", Some(1), Some(3), "r"),
            rule(true, "c", Some(1), Some(3), "wm"),
            rule(true, "c", Some(136), None, "rwm"),
            rule(false, "c", Some(136), None, "w"),
        ]);
        assert!(!docker.allow);
        assert_eq!(docker.exceptions.len(), 4);
        assert!(allowed(&docker, 2, 1, 3, READ | WRITE));
        assert!(allowed(&docker, 2, 7, 7, MKNOD));
        assert!(!allowed(&docker, 2, 7, 7, MKNOD | READ));
        assert!(allowed(&docker, 2, 136, 5, READ));
        assert!(!allowed(&docker, 2, 136, 5, WRITE));
        assert!(!allowed(&docker, 1, 8, 0, READ));
        assert!(!allowed(&docker, 2, 9, 9, READ));

        let privileged = state(&[rule(false, "a", None, None, ""), rule(true, "", None, None, "")]);
        assert!(privileged.is_open());
        let but_one = state(&[rule(false, "b", Some(8), None, "w")]);
        assert!(allowed(&but_one, 1, 8, 1, READ));
        assert!(!allowed(&but_one, 1, 8, 1, READ | WRITE));
        let both = state(&[rule(false, "a", None, None, ""), rule(true, "a", Some(1), None, "r")]);
        assert_eq!(both.exceptions.len(), 2);
    }

    #[test]
    fn lines_of_version_1() {
        let lines: Vec<_> = steps(&[
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", Some(5), None, "rw"),
            rule(false, "b", Some(8), Some(1), ""),
        ])
        .unwrap()
        .iter()
        .map(v1_line)
        .collect();
        assert_eq!(
            lines,
            [
                ("devices.deny", "a".to_owned()),
                ("devices.allow", "c 5:* rw".to_owned()),
                ("devices.deny", "b 8:1 rwm".to_owned()),
            ]
        );
    }

    #[test]
    fn senseless_rules() {
        for bad in [
            rule(true, "x", None, None, "r"),
            rule(true, "c", Some(-2), None, "r"),
            rule(true, "c", None, Some(1 << 32), "r"),
            rule(true, "c", None, None, "rx"),
        ] {
            assert!(steps(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }
}

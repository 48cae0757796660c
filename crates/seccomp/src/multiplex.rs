//! The calls of 32-bit x86 that can also be made through `socketcall` and `ipc`, whose first
//! argument says which is meant (linux/net.h, linux/ipc.h).

use silo_oci::runtime::SeccompOperator;

use crate::policy::Condition;

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// Name, number of the multiplexing call, value of its first argument. Sorted by name.
static CALLS: &[(&str, u32, u32)] = &[
    ("accept", SOCKETCALL, 5),
    ("accept4", SOCKETCALL, 18),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15),
    ("listen", SOCKETCALL, 4),
    ("msgctl", IPC, 14),
    ("msgget", IPC, 13),
    ("msgrcv", IPC, 12),
    ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10),
    ("recvfrom", SOCKETCALL, 12),
    ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17),
    ("semctl", IPC, 3),
    ("semget", IPC, 2),
    ("semop", IPC, 1),
    ("semtimedop", IPC, 4),
    ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20),
    ("sendmsg", SOCKETCALL, 16),
    ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14),
    ("shmat", IPC, 21),
    ("shmctl", IPC, 24),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

/// The number of the call through which `name` can be reached, and the selecting value.
pub(crate) fn of(name: &str) -> Option<(u32, u32)> {
    let at = CALLS.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()?;
    Some((CALLS[at].1, CALLS[at].2))
}

/// That the first argument selects a call. `ipc` has a version in the upper half of it.
pub(crate) fn condition(selector: u32) -> Condition {
    Condition {
        index: 0,
        compare: SeccompOperator::MaskedEqual,
        value: u64::from(selector),
        mask: 0xffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_sorted() {
        assert!(CALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(of("socket"), Some((102, 1)));
        assert_eq!(of("read"), None);
    }
}

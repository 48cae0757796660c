//! Programs are run by an interpreter and compared with a plain reading of the profile.

mod docker;
mod machine;

use silo_oci::runtime::{
    LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompArch, SeccompFlag,
    SeccompOperator,
};

use crate::arch::X32_BIT;
use crate::policy::{RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_LOG, RET_NOTIFY, RET_TRACE};
use crate::policy::{RET_KILL_THREAD, RET_TRAP};
use crate::tests::machine::run;
use crate::{Arch, Error, Host, Program, compile_for, default_profile};

const EPERM: u32 = RET_ERRNO | 1;
const ENOSYS: u32 = RET_ERRNO + 38;
const ARCHES: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

fn rule(names: &[&str], action: SeccompAction) -> LinuxSyscall {
    LinuxSyscall {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        action,
        ..LinuxSyscall::default()
    }
}

fn when(mut rule: LinuxSyscall, args: &[(u32, SeccompOperator, u64, u64)]) -> LinuxSyscall {
    rule.args = args
        .iter()
        .map(|&(index, op, value, value_two)| LinuxSeccompArg { index, value, op, value_two })
        .collect();
    rule
}

fn profile(default_action: SeccompAction, syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccomp { default_action, syscalls, ..LinuxSeccomp::default() }
}

fn compiled(profile: &LinuxSeccomp) -> Program {
    compile_for(profile, Arch::X86_64).unwrap()
}

fn call(program: &Program, arch: Arch, name: &str, args: &[u64]) -> u32 {
    run(program, arch.audit(), arch.number(name).unwrap(), args)
}

/// What a profile means, read without any cleverness. Multiplexed calls are not covered.
fn meaning(profile: &LinuxSeccomp, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    let value = |action: SeccompAction, errno: Option<u32>| match action {
        SeccompAction::Kill | SeccompAction::KillThread => RET_KILL_THREAD,
        SeccompAction::KillProcess => RET_KILL_PROCESS,
        SeccompAction::Trap => RET_TRAP,
        SeccompAction::Errno => RET_ERRNO | errno.unwrap_or(1),
        SeccompAction::Trace => RET_TRACE | errno.unwrap_or(1),
        SeccompAction::Allow => RET_ALLOW,
        SeccompAction::Log => RET_LOG,
        SeccompAction::Notify => RET_NOTIFY,
    };
    let default = value(profile.default_action, profile.default_errno_ret);
    let cut = |word: u64| if arch.narrow() { word & 0xffff_ffff } else { word };
    let holds = |arg: &LinuxSeccompArg| {
        let given = cut(args[usize::try_from(arg.index).unwrap()]);
        let wanted = cut(arg.value);
        match arg.op {
            SeccompOperator::NotEqual => given != wanted,
            SeccompOperator::LessThan => given < wanted,
            SeccompOperator::LessEqual => given <= wanted,
            SeccompOperator::Equal => given == wanted,
            SeccompOperator::GreaterEqual => given >= wanted,
            SeccompOperator::GreaterThan => given > wanted,
            SeccompOperator::MaskedEqual => given & wanted == cut(arg.value_two) & wanted,
        }
    };
    let special = match arch {
        Arch::Arm => 0xf_0000,
        Arch::X32 => X32_BIT | 512,
        _ => u32::MAX,
    };
    let mut named = Vec::new();
    let mut newest = None;
    for rule in &profile.syscalls {
        for name in &rule.names {
            let known = arch.number(name);
            newest = newest.max(known.filter(|&known| known < special));
            if known == Some(number) && value(rule.action, rule.errno_ret) != default {
                named.push(rule);
            }
        }
    }
    if let Some(rule) = named.iter().find(|rule| rule.args.is_empty()) {
        return value(rule.action, rule.errno_ret);
    }
    for rule in &named {
        let mut indices: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        indices.dedup();
        let matches = if indices.len() == rule.args.len() {
            rule.args.iter().all(holds)
        } else {
            rule.args.iter().any(holds)
        };
        if matches {
            return value(rule.action, rule.errno_ret);
        }
    }
    let lax = matches!(
        profile.default_action,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Notify
    );
    match newest {
        Some(newest) if !lax && (newest + 1..special).contains(&number) && named.is_empty() => {
            ENOSYS
        }
        _ => default,
    }
}

#[test]
fn every_call_of_the_default_profile() {
    let args = [
        [0; 6],
        [38, 0, 0, 0, 0, 0],
        [40, 1, 2, 3, 4, 5],
        [0x1000_0000, 0, 0, 0, 0, 0],
        [0xffff_ffff, 0, 0, 0, 0, 0],
        [u64::MAX; 6],
    ];
    for (native, others) in [
        (Arch::X86_64, &[Arch::X86_64, Arch::X86, Arch::X32][..]),
        (Arch::Aarch64, &[Arch::Aarch64, Arch::Arm][..]),
    ] {
        for caps in [&[][..], &["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_CHROOT"][..]] {
            let host = Host { arch: native, kernel: (6, 18) };
            let profile = default_profile(caps, &host);
            let program = compile_for(&profile, native).unwrap();
            for &arch in others {
                for (name, number) in arch.syscalls() {
                    for args in args {
                        assert_eq!(
                            run(&program, arch.audit(), number, &args),
                            meaning(&profile, arch, number, args),
                            "{arch:?} {name} {args:?} {caps:?}"
                        );
                    }
                }
                let base = if arch == Arch::X32 { X32_BIT } else { 0 };
                for number in (0..2000).chain([0x3fff_ffff, 0xf_0000, 0xf_ffff]) {
                    let number = base | number;
                    assert_eq!(
                        run(&program, arch.audit(), number, &args[0]),
                        meaning(&profile, arch, number, args[0]),
                        "{arch:?} {number:#x}"
                    );
                }
            }
            assert_eq!(run(&program, 0x1234, 0, &[]), RET_KILL_PROCESS);
            assert!(program.instructions.len() < 800, "{}", program.instructions.len());
        }
    }
}

#[test]
fn what_the_default_profile_must_refuse() {
    let host = Host { arch: Arch::X86_64, kernel: (6, 18) };
    let plain = compiled(&default_profile::<&str>(&[], &host));
    let admin = compiled(&default_profile(&["CAP_SYS_ADMIN"], &host));
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for name in [
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "kexec_load",
            "swapon",
            "pivot_root",
            "move_pages",
            "nfsservctl",
            "clock_settime",
        ] {
            if arch.number(name).is_some() {
                assert_eq!(call(&plain, arch, name, &[]), EPERM, "{arch:?} {name}");
                assert_eq!(call(&admin, arch, name, &[]), EPERM, "{arch:?} {name}");
            }
        }
        for name in ["mount", "umount2", "unshare", "setns", "bpf", "open_tree", "fsopen"] {
            assert_eq!(call(&plain, arch, name, &[]), EPERM, "{arch:?} {name}");
            assert_eq!(call(&admin, arch, name, &[]), RET_ALLOW, "{arch:?} {name}");
        }
        assert_eq!(call(&plain, arch, "clone3", &[]), ENOSYS);
        assert_eq!(call(&admin, arch, "clone3", &[]), RET_ALLOW);
        for namespace in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWCGROUP,
        ] {
            let flags = u64::from(namespace.unsigned_abs()) + 17;
            assert_eq!(call(&plain, arch, "clone", &[flags]), EPERM, "{flags:#x}");
            assert_eq!(call(&admin, arch, "clone", &[flags]), RET_ALLOW, "{flags:#x}");
        }
        let thread = u64::from((libc::CLONE_VM | libc::CLONE_THREAD).unsigned_abs());
        assert_eq!(call(&plain, arch, "clone", &[thread]), RET_ALLOW);
        for family in 0..64 {
            let expected = if family == 38 || family == 40 { EPERM } else { RET_ALLOW };
            // The kernel uses the low half only, and so must the filter.
            for high in [0, 1 << 32, 0xffff_ffff << 32] {
                assert_eq!(call(&plain, arch, "socket", &[family | high]), expected, "{family}");
            }
        }
        assert_eq!(call(&plain, arch, "personality", &[0x20008]), RET_ALLOW);
        assert_eq!(call(&plain, arch, "personality", &[0x0040_0000]), EPERM);
        assert_eq!(call(&plain, arch, "file_setattr", &[]), ENOSYS, "newer than the profile");
    }
}

#[test]
fn kernel_and_architecture_decide() {
    let old = default_profile::<&str>(&[], &Host { arch: Arch::X86_64, kernel: (4, 7) });
    let new = default_profile::<&str>(&[], &Host { arch: Arch::X86_64, kernel: (4, 8) });
    assert_eq!(call(&compiled(&old), Arch::X86_64, "ptrace", &[]), EPERM);
    assert_eq!(call(&compiled(&new), Arch::X86_64, "ptrace", &[]), RET_ALLOW);
    assert_eq!(call(&compiled(&new), Arch::X86_64, "arch_prctl", &[]), RET_ALLOW);
    let arm = default_profile::<&str>(&[], &Host { arch: Arch::Aarch64, kernel: (6, 1) });
    let arm = compile_for(&arm, Arch::Aarch64).unwrap();
    assert_eq!(call(&arm, Arch::Arm, "set_tls", &[]), RET_ALLOW);
    assert_eq!(call(&arm, Arch::Aarch64, "openat", &[]), RET_ALLOW);
    assert_eq!(run(&arm, Arch::X86_64.audit(), 0, &[]), RET_KILL_PROCESS);
}

#[test]
fn every_action() {
    use SeccompAction as A;
    for (action, errno, value) in [
        (A::Kill, None, RET_KILL_THREAD),
        (A::KillThread, None, RET_KILL_THREAD),
        (A::KillProcess, None, RET_KILL_PROCESS),
        (A::Trap, None, RET_TRAP),
        (A::Errno, None, EPERM),
        (A::Errno, Some(0), RET_ERRNO),
        (A::Errno, Some(4095), RET_ERRNO | 4095),
        (A::Trace, Some(7), RET_TRACE | 7),
        (A::Log, None, RET_LOG),
        (A::Notify, None, RET_NOTIFY),
    ] {
        let mut refuse = rule(&["getpid"], action);
        refuse.errno_ret = errno;
        let program = compiled(&profile(A::Allow, vec![refuse]));
        assert_eq!(call(&program, Arch::X86_64, "getpid", &[]), value, "{action:?}");
        assert_eq!(call(&program, Arch::X86_64, "getppid", &[]), RET_ALLOW, "{action:?}");
        assert_eq!(program.notifies(), action == A::Notify);
    }
}

#[test]
fn comparisons_at_their_edges() {
    use SeccompOperator as Op;
    let edges = [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x7fff_ffff_ffff_ffff, u64::MAX];
    for op in [
        Op::NotEqual,
        Op::LessThan,
        Op::LessEqual,
        Op::Equal,
        Op::GreaterEqual,
        Op::GreaterThan,
        Op::MaskedEqual,
    ] {
        for value in edges {
            for two in [0, 1, value] {
                let allow = rule(&["prctl"], SeccompAction::Allow);
                let mut profile =
                    profile(SeccompAction::Errno, vec![when(allow, &[(5, op, value, two)])]);
                profile.architectures = vec![SeccompArch::X86, SeccompArch::X32];
                let program = compiled(&profile);
                for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
                    let number = arch.number("prctl").unwrap();
                    for given in edges {
                        let args = [9, 9, 9, 9, 9, given];
                        assert_eq!(
                            run(&program, arch.audit(), number, &args),
                            meaning(&profile, arch, number, args),
                            "{arch:?} {given:#x} {op:?} {value:#x} {two:#x}"
                        );
                    }
                }
            }
        }
    }
}

/// Numbers without a pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

#[test]
fn profiles_at_random() {
    use SeccompAction as A;
    use SeccompOperator as Op;
    let actions = [A::Allow, A::Errno, A::KillProcess, A::Log, A::Trap, A::Trace];
    let ops = [
        Op::NotEqual,
        Op::LessThan,
        Op::LessEqual,
        Op::Equal,
        Op::GreaterEqual,
        Op::GreaterThan,
        Op::MaskedEqual,
    ];
    let values = [0, 1, 2, 3, 38, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    // Names of multiplexed calls have tests of their own.
    let names: Vec<&str> = ARCHES
        .iter()
        .flat_map(|arch| arch.syscalls())
        .map(|(name, _)| name)
        .filter(|name| crate::multiplex::of(name).is_none())
        .collect();
    let mut random = Numbers(0x5110_5110);
    for round in 0..60 {
        let native = if round % 2 == 0 { Arch::X86_64 } else { Arch::Aarch64 };
        let mut rules = Vec::new();
        for _ in 0..random.below(25) {
            let chosen: Vec<&str> = (0..=random.below(10)).map(|_| random.pick(&names)).collect();
            let mut one = rule(&chosen, random.pick(&actions));
            one.errno_ret = [None, Some(38), Some(5)][random.below(3)];
            let args: Vec<_> = (0..random.below(3))
                .map(|_| {
                    let index = u32::try_from(random.below(6)).unwrap();
                    (index, random.pick(&ops), random.pick(&values), random.pick(&values))
                })
                .collect();
            rules.push(when(one, &args));
        }
        let mut profile = profile(random.pick(&actions), rules);
        profile.architectures =
            vec![SeccompArch::X86, SeccompArch::X32, SeccompArch::Arm, SeccompArch::S390x];
        let program = compile_for(&profile, native).unwrap();
        let arches: &[Arch] = match native {
            Arch::X86_64 => &[Arch::X86_64, Arch::X86, Arch::X32],
            _ => &[Arch::Aarch64, Arch::Arm],
        };
        for &arch in arches {
            let base = if arch == Arch::X32 { X32_BIT } else { 0 };
            for number in (0..480).map(|number| base | number) {
                let args: [u64; 6] = std::array::from_fn(|_| random.pick(&values));
                assert_eq!(
                    run(&program, arch.audit(), number, &args),
                    meaning(&profile, arch, number, args),
                    "round {round} {arch:?} {number} {args:?}"
                );
            }
        }
    }
}

#[test]
fn several_conditions() {
    use SeccompOperator::{Equal, GreaterEqual, LessEqual};
    let allow = || rule(&["prctl"], SeccompAction::Allow);
    let both = when(allow(), &[(0, Equal, 1, 0), (1, Equal, 2, 0)]);
    let program = compiled(&profile(SeccompAction::Errno, vec![both]));
    let prctl = |program: &Program, args: &[u64]| call(program, Arch::X86_64, "prctl", args);
    assert_eq!(prctl(&program, &[1, 2]), RET_ALLOW);
    assert_eq!(prctl(&program, &[1, 3]), EPERM);
    // Two on one argument are alternatives.
    let range = when(allow(), &[(0, GreaterEqual, 10, 0), (0, LessEqual, 5, 0)]);
    let program = compiled(&profile(SeccompAction::Errno, vec![range]));
    assert_eq!(prctl(&program, &[12]), RET_ALLOW);
    assert_eq!(prctl(&program, &[3]), RET_ALLOW);
    assert_eq!(prctl(&program, &[7]), EPERM);
}

#[test]
fn multiplexed_calls_of_x86() {
    let x86 = |default, rules| {
        let mut profile = profile(default, rules);
        profile.architectures = vec![SeccompArch::X86];
        compiled(&profile)
    };
    let refuse = || rule(&["socket", "semop"], SeccompAction::Errno);
    let program = x86(SeccompAction::Allow, vec![refuse()]);
    assert_eq!(call(&program, Arch::X86, "socket", &[1]), EPERM);
    assert_eq!(call(&program, Arch::X86, "socketcall", &[1]), EPERM);
    assert_eq!(call(&program, Arch::X86, "socketcall", &[2]), RET_ALLOW);
    assert_eq!(call(&program, Arch::X86, "ipc", &[0x1_0001]), EPERM);
    assert_eq!(call(&program, Arch::X86, "ipc", &[2]), RET_ALLOW);
    // A refusal by argument covers the multiplexed call whole, a permission does not reach it.
    let vsock = [(0, SeccompOperator::Equal, 40, 0)];
    let program = x86(SeccompAction::Allow, vec![when(refuse(), &vsock)]);
    assert_eq!(call(&program, Arch::X86, "socket", &[1]), RET_ALLOW);
    assert_eq!(call(&program, Arch::X86, "socketcall", &[1]), EPERM);
    let allow = rule(&["socket"], SeccompAction::Allow);
    let program = x86(SeccompAction::Errno, vec![when(allow, &vsock)]);
    assert_eq!(call(&program, Arch::X86, "socketcall", &[1]), EPERM);
}

#[test]
fn x32_without_being_asked_for_is_killed() {
    let allow = rule(&["read"], SeccompAction::Allow);
    let program = compiled(&profile(SeccompAction::Errno, vec![allow]));
    assert_eq!(call(&program, Arch::X86_64, "read", &[]), RET_ALLOW);
    assert_eq!(call(&program, Arch::X32, "read", &[]), RET_KILL_PROCESS);
    assert_eq!(call(&program, Arch::X86, "read", &[]), RET_KILL_PROCESS);
    // A call that a tracer skips must not kill.
    assert_eq!(run(&program, Arch::X86_64.audit(), u32::MAX, &[]), EPERM);
}

#[test]
fn unknown_names_are_left_out() {
    let odd = rule(&["no_such_call", "read"], SeccompAction::Allow);
    let program = compiled(&profile(SeccompAction::Errno, vec![odd]));
    assert_eq!(call(&program, Arch::X86_64, "read", &[]), RET_ALLOW);
}

#[test]
fn flags() {
    use crate::{FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_TSYNC};
    let mut profile = profile(SeccompAction::Allow, vec![rule(&["bpf"], SeccompAction::Errno)]);
    assert_eq!(compiled(&profile).flags, FLAG_SPEC_ALLOW);
    profile.flags = vec![SeccompFlag::Log, SeccompFlag::Tsync];
    assert_eq!(compiled(&profile).flags, FLAG_LOG | FLAG_TSYNC);
    profile.syscalls[0].action = SeccompAction::Notify;
    assert_eq!(compiled(&profile).flags, FLAG_LOG | FLAG_TSYNC | FLAG_NEW_LISTENER);
}

#[test]
fn senseless_profiles() {
    let error = |profile: &LinuxSeccomp| compile_for(profile, Arch::X86_64).unwrap_err();
    let notify = profile(SeccompAction::Notify, Vec::new());
    assert!(matches!(error(&notify), Error::NotifyByDefault));
    let write = profile(SeccompAction::Allow, vec![rule(&["write"], SeccompAction::Notify)]);
    assert!(matches!(error(&write), Error::NotifyWrite));
    let seventh = when(rule(&["read"], SeccompAction::Errno), &[(6, SeccompOperator::Equal, 0, 0)]);
    let seventh = profile(SeccompAction::Allow, vec![seventh]);
    assert!(matches!(error(&seventh), Error::ArgumentIndex { index: 6, .. }));
    let mut errno = rule(&["read"], SeccompAction::Errno);
    errno.errno_ret = Some(4096);
    assert!(matches!(
        error(&profile(SeccompAction::Allow, vec![errno])),
        Error::Errno { errno: 4096, .. }
    ));
    let one = |value| {
        let args = [(0, SeccompOperator::Equal, value, 0), (1, SeccompOperator::Equal, value, 0)];
        when(rule(&["ioctl"], SeccompAction::Errno), &args)
    };
    let long = profile(SeccompAction::Allow, (0..2000).map(one).collect());
    assert!(matches!(error(&long), Error::TooLong(_)));
}

#[test]
fn bytes_of_a_program() {
    let host = Host { arch: Arch::X86_64, kernel: (6, 18) };
    let program = compiled(&default_profile::<&str>(&[], &host));
    let bytes = program.to_bytes();
    assert_eq!(Program::from_bytes(&bytes), Some(program));
    assert_eq!(Program::from_bytes(&bytes[..bytes.len() - 1]), None);
    assert_eq!(Program::from_bytes(&bytes[..4]), None);
    assert_eq!(Program::from_bytes(&[]), None);
}

#[test]
fn the_way_through_the_tree_is_short() {
    let host = Host { arch: Arch::X86_64, kernel: (6, 18) };
    let program = compiled(&default_profile::<&str>(&[], &host));
    let most = Arch::X86_64
        .syscalls()
        .map(|(_, number)| machine::steps(&program, Arch::X86_64.audit(), number, &[0; 6]))
        .max();
    assert!(most <= Some(30), "{most:?}");
}

/// Loads the default profile into a thread of its own and makes calls under it.
#[test]
fn the_kernel_takes_the_default_profile() {
    let release = rustix::system::uname();
    let Ok(host) = Host::new(&release.release().to_string_lossy()) else { return };
    let program = compile_for(&default_profile::<&str>(&[], &host), host.arch).unwrap();
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        silo_sys::seccomp::load(&program.instructions, program.flags).unwrap();
        let vsock = rustix::net::AddressFamily::from_raw(40);
        let stream = rustix::net::SocketType::STREAM;
        assert_eq!(rustix::net::socket(vsock, stream, None).unwrap_err(), rustix::io::Errno::PERM);
        rustix::net::socket(rustix::net::AddressFamily::UNIX, stream, None).unwrap();
        assert_eq!(
            rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()).unwrap_err(),
            rustix::io::Errno::PERM
        );
        assert_eq!(rustix::fs::stat("/nowhere").unwrap_err(), rustix::io::Errno::NOENT);
    })
    .join()
    .unwrap();
}

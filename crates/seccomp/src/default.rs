//! Docker's default profile as data: an allow list, with rules for what a container's
//! capabilities, its architecture and the kernel make acceptable.
//!
//! One thing is stricter than Docker's own: the rule for `socket` looks at the low half of the
//! family only, as the kernel does, so that a value with bits above 31 cannot pass for another
//! family than the kernel then uses.

use silo_oci::runtime::SeccompOperator::{self, Equal, MaskedEqual};

/// When a rule is part of the profile.
pub(crate) enum When {
    Always,
    /// The bounding set has this capability.
    Has(&'static str),
    /// The bounding set lacks this capability.
    Lacks(&'static str),
    /// The machine's architecture is one of these, by Docker's names.
    On(&'static [&'static str]),
    /// The kernel is this version or later.
    Kernel(u64, u64),
}

/// What a rule does with its calls. All else fails with `EPERM`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    /// Fails with `ENOSYS`, so that programs take an older call.
    Missing,
}

/// A condition: the argument, how it is compared, the value or mask, the second value.
pub(crate) type Arg = (u32, SeccompOperator, u64, u64);

/// Calls by name, separated by blanks.
pub(crate) struct DefaultRule {
    pub(crate) when: When,
    pub(crate) names: &'static str,
    pub(crate) effect: Effect,
    /// Alternatives of one condition each; empty is always.
    pub(crate) args: &'static [Arg],
}

const fn allow(when: When, names: &'static str) -> DefaultRule {
    DefaultRule { when, names, effect: Effect::Allow, args: &[] }
}

/// All namespaces that clone(2) makes with flags in its first argument: mount, UTS, IPC, user,
/// PID, network, cgroup.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Families of socket(2) by the bits of their numbers: all but `AF_ALG` (38, the kernel's
/// cryptography) and `AF_VSOCK` (40, which leads out of a virtual machine), up to 63. There
/// are 46.
static SOCKET_FAMILIES: &[Arg] = &[
    (0, MaskedEqual, 0xffff_ffe0, 0),
    (0, MaskedEqual, 0xffff_fffc, 32),
    (0, MaskedEqual, 0xffff_fffe, 36),
    (0, MaskedEqual, 0xffff_ffff, 39),
    (0, MaskedEqual, 0xffff_ffff, 41),
    (0, MaskedEqual, 0xffff_fffe, 42),
    (0, MaskedEqual, 0xffff_fffc, 44),
    (0, MaskedEqual, 0xffff_fff0, 48),
];

/// Execution domains: Linux, `PER_LINUX32`, both with `UNAME26`, and the question for the
/// present one.
static PERSONALITIES: &[Arg] = &[
    (0, Equal, 0, 0),
    (0, Equal, 0x0008, 0),
    (0, Equal, 0x2_0000, 0),
    (0, Equal, 0x2_0008, 0),
    (0, Equal, 0xffff_ffff, 0),
];

/// The profile.
pub(crate) static RULES: &[DefaultRule] = &[
    allow(
        When::Always,
        "\
            _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset \
            chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
            clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range \
            connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
            epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve \
            execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate \
            fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 \
            fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
            fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 \
            futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
            getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
            getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom \
            getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
            getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch \
            inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents \
            io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc \
            kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
            lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr \
            lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create \
            memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 \
            mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
            mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd \
            msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat \
            openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
            poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 \
            pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv \
            recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat \
            rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction \
            rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
            rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
            sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
            sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
            sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
            semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
            set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
            setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
            setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
            setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
            signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
            statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
            timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
            timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
            timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
            uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid \
            write writev",
    ),
    allow(When::Kernel(4, 8), "process_vm_readv process_vm_writev ptrace"),
    DefaultRule {
        when: When::Always,
        names: "socket",
        effect: Effect::Allow,
        args: SOCKET_FAMILIES,
    },
    DefaultRule {
        when: When::Always,
        names: "personality",
        effect: Effect::Allow,
        args: PERSONALITIES,
    },
    allow(
        When::On(&["arm", "arm64"]),
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    allow(When::On(&["amd64", "x32"]), "arch_prctl"),
    allow(When::On(&["amd64", "x32", "x86"]), "modify_ldt"),
    allow(When::Has("CAP_DAC_READ_SEARCH"), "open_by_handle_at"),
    allow(
        When::Has("CAP_SYS_ADMIN"),
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
            lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
            open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
            umount umount2 unshare",
    ),
    DefaultRule {
        when: When::Lacks("CAP_SYS_ADMIN"),
        names: "clone",
        effect: Effect::Allow,
        args: &[(0, MaskedEqual, CLONE_NAMESPACES, 0)],
    },
    DefaultRule {
        when: When::Lacks("CAP_SYS_ADMIN"),
        names: "clone3",
        effect: Effect::Missing,
        args: &[],
    },
    allow(When::Has("CAP_SYS_BOOT"), "reboot"),
    allow(When::Has("CAP_SYS_CHROOT"), "chroot"),
    allow(When::Has("CAP_SYS_MODULE"), "delete_module finit_module init_module"),
    allow(When::Has("CAP_SYS_PACCT"), "acct"),
    allow(
        When::Has("CAP_SYS_PTRACE"),
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    allow(When::Has("CAP_SYS_RAWIO"), "ioperm iopl"),
    allow(When::Has("CAP_SYS_TIME"), "clock_settime clock_settime64 settimeofday stime"),
    allow(When::Has("CAP_SYS_TTY_CONFIG"), "vhangup"),
    allow(When::Has("CAP_SYS_NICE"), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    allow(When::Has("CAP_SYSLOG"), "syslog"),
    allow(When::Has("CAP_BPF"), "bpf"),
    allow(When::Has("CAP_PERFMON"), "perf_event_open"),
];

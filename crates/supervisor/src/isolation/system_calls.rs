//! A filter of system calls (seccomp(2)) against the ways of a child to affect other processes, or
//! the kernel itself, that no file rule covers.
//!
//! The filter is a list of denied calls: everything else runs, so that any language runtime works.
//! A denied call fails with EPERM, as for a user without the right to it, and the child goes on.
//! `clone3` fails with ENOSYS: a filter cannot read its flags, which lie in memory, and C libraries
//! fall back to `clone`. Every call of a foreign architecture (32-bit programs, x32) fails with
//! ENOSYS too, since its numbers differ.
//!
//! Calls that take a process are allowed only in the form that means the caller itself (number 0):
//! a filter cannot know which other numbers belong to the child.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// A compiled filter.
#[derive(Clone, Debug)]
pub(super) struct SystemCallFilter(BpfProgram);

/// Calls that are always denied.
const DENIED: [libc::c_long; 47] = [
    // Tracing other processes, their memory and their descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Keys of the broker's user and session.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Shared memory, messages and semaphores with numbers and names that all processes share.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    // Large interfaces of the kernel that servers do not need, with a history of faults.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    // Memory placement of other processes.
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Accounting, quotas and swap belong to the machine.
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
];

/// Calls that are denied if the argument at this index, the number of a process, is not 0.
const DENIED_ON_OTHERS: [(libc::c_long, u8); 5] = [
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setaffinity, 0),
];

/// Calls whose first argument is the kind of the second: a process, a group, or a user. They are
/// denied if the second is not 0, or the first is this value, a user.
const DENIED_ON_OTHERS_AND_USERS: [(libc::c_long, u64); 2] = [
    (libc::SYS_setpriority, libc::PRIO_USER as u64),
    (libc::SYS_ioprio_set, IOPRIO_WHO_USER),
];

/// The families of sockets that children may create: UNIX, IPv4, IPv6, and netlink, with which C
/// libraries list addresses.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Protocols that fall back to TCP with a server that knows only that, past Landlock's TCP rules:
/// multipath TCP, and `IPPROTO_SMC` of linux/in.h.
const TCP_BY_OTHER_NAMES: [libc::c_int; 2] = [libc::IPPROTO_MPTCP, 256];

/// Calls that connect a TCP socket themselves if their flags contain MSG_FASTOPEN, past Landlock's
/// TCP rules, with the index of the flags.
const SENDING: [(libc::c_long, u8); 3] = [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

/// The flags of `clone` and `unshare` that create namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// `IOPRIO_WHO_USER` of linux/ioprio.h.
const IOPRIO_WHO_USER: u64 = 3;

/// `__NR_open_tree_attr`, the same on all architectures.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// The first number of x32 calls (`__X32_SYSCALL_BIT`). Other architectures have none so large.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Instructions of linux/bpf_common.h: load a word of the data, jump if the word is equal or
/// greater or equal, return.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

impl SystemCallFilter {
    /// Compiles the filter for this architecture. Fails on one for which there is none, with the
    /// reason.
    pub(super) fn new() -> Result<Self, String> {
        let target = TargetArch::try_from(ARCH).map_err(|error| error.to_string())?;
        let architecture = match target {
            TargetArch::x86_64 => 0xC000_003E,
            TargetArch::aarch64 => 0xC000_00B7,
            TargetArch::riscv64 => 0xC000_00F3,
        };
        let rules = rules().map_err(|error| error.to_string())?;
        let deny = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, target);
        let program: BpfProgram = filter
            .and_then(SeccompFilter::try_into)
            .map_err(|error| error.to_string())?;
        Ok(Self(unknown_calls(architecture).into_iter().chain(program).collect()))
    }

    /// Installs it for the calling thread and the processes that it starts. Makes two system calls,
    /// the first of which sets `no_new_privs`, and allocates nothing.
    pub(super) fn install(&self) -> Result<(), Errno> {
        let errno = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::INVAL);
        match apply_filter(&self.0) {
            Ok(()) => Ok(()),
            Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error)) => Err(errno(&error)),
            Err(_) => Err(Errno::INVAL),
        }
    }
}

/// The denied calls with their conditions; the rules of one call are alternatives.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    // The kernel reads all of these arguments as 32 bits.
    let rule = |index, operator, value| {
        let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let has = |index, flag: libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        rule(index, SeccompCmpOp::MaskedEq(flag), flag)
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.into_iter().map(|call| (call, Vec::new())).collect();
    for (call, process) in DENIED_ON_OTHERS {
        rules.insert(call, vec![rule(process, SeccompCmpOp::Ne, 0)?]);
    }
    for (call, user) in DENIED_ON_OTHERS_AND_USERS {
        rules.insert(
            call,
            vec![rule(1, SeccompCmpOp::Ne, 0)?, rule(0, SeccompCmpOp::Eq, user)?],
        );
    }
    let mut creating: Vec<SeccompRule> = NAMESPACES
        .into_iter()
        .map(|flag| has(0, flag))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, creating.clone());
    // Among the flags of `clone`, this one would be a part of the signal at the end.
    creating.push(has(0, libc::CLONE_NEWTIME)?);
    rules.insert(libc::SYS_unshare, creating);
    let other = |family: libc::c_int| {
        let family = family.unsigned_abs().into();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let others = SOCKETS.into_iter().map(other).collect::<Result<_, _>>()?;
    let mut sockets = vec![SeccompRule::new(others)?];
    for protocol in TCP_BY_OTHER_NAMES {
        sockets.push(rule(2, SeccompCmpOp::Eq, protocol.unsigned_abs().into())?);
    }
    rules.insert(libc::SYS_socket, sockets);
    for (call, flags) in SENDING {
        rules.insert(call, vec![has(flags, libc::MSG_FASTOPEN)?]);
    }
    Ok(rules)
}

/// The instructions before the rules: ENOSYS for a foreign architecture, x32 and `clone3`.
fn unknown_calls(architecture: u32) -> [sock_filter; 6] {
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    let unknown = libc::SECCOMP_RET_ERRNO | Errno::NOSYS.raw_os_error().unsigned_abs();
    let instruction = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    [
        instruction(LOAD, ARCHITECTURE, 0, 0),
        instruction(JUMP_IF_EQUAL, architecture, 0, 3),
        instruction(LOAD, NUMBER, 0, 0),
        instruction(JUMP_IF_AT_LEAST, X32, 1, 0),
        instruction(JUMP_IF_EQUAL, clone3, 0, 1),
        instruction(RETURN, unknown, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    /// The result of the filter for a call, by the rules of classic BPF.
    fn result(architecture: u32, number: u32, args: &[u64]) -> u32 {
        let SystemCallFilter(program) = SystemCallFilter::new().unwrap();
        let low = |arg: u64| u32::try_from(arg & 0xFFFF_FFFF).unwrap();
        let (mut at, mut word) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |condition| usize::from(if condition { jt } else { jf });
            match code {
                LOAD => {
                    word = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        // The low words of the arguments.
                        other => low(args[usize::try_from((other - 16) / 8).unwrap()]),
                    }
                }
                // BPF_ALU | BPF_AND | BPF_K
                0x54 => word &= k,
                // BPF_JMP | BPF_JA
                0x05 => at += usize::try_from(k).unwrap(),
                JUMP_IF_EQUAL => at += jump(word == k),
                JUMP_IF_AT_LEAST => at += jump(word >= k),
                RETURN => return k,
                other => panic!("an instruction {other:#x}"),
            }
        }
    }

    fn call<const N: usize>(number: libc::c_long, args: [u64; N]) -> u32 {
        let native = if cfg!(target_arch = "aarch64") {
            0xC000_00B7
        } else {
            0xC000_003E
        };
        result(native, number.try_into().unwrap(), &args)
    }

    fn flag(flag: libc::c_int) -> u64 {
        u64::from(flag.unsigned_abs())
    }

    #[test]
    fn every_listed_call_is_denied() {
        for number in DENIED {
            assert_eq!(call(number, [0, 0]), EPERM, "{number}");
        }
    }

    #[test]
    fn calls_on_a_process_are_allowed_only_for_the_caller() {
        for (number, _) in DENIED_ON_OTHERS {
            assert_eq!(call(number, [0, 7]), ALLOWED, "{number}");
            for process in [1, 4711, u64::MAX] {
                assert_eq!(call(number, [process, 0]), EPERM, "{number} {process}");
            }
        }
        for (number, user) in DENIED_ON_OTHERS_AND_USERS {
            assert_eq!(call(number, [user - 1, 0]), ALLOWED, "{number}");
            assert_eq!(call(number, [user - 1, 4711]), EPERM, "{number}");
            assert_eq!(call(number, [user, 0]), EPERM, "{number}");
        }
    }

    #[test]
    fn namespaces_are_denied_and_threads_and_processes_are_not() {
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        let process = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
        let spawn = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        for flags in [thread, process, spawn] {
            assert_eq!(call(libc::SYS_clone, [flag(flags), 0]), ALLOWED);
            for namespace in NAMESPACES {
                assert_eq!(call(libc::SYS_clone, [flag(flags | namespace), 0]), EPERM);
            }
        }
        assert_eq!(call(libc::SYS_unshare, [flag(libc::CLONE_FILES), 0]), ALLOWED);
        for namespace in NAMESPACES.into_iter().chain([libc::CLONE_NEWTIME]) {
            assert_eq!(call(libc::SYS_unshare, [flag(namespace), 0]), EPERM);
        }
    }

    #[test]
    fn sockets_reach_tcp_servers_only_by_connect() {
        let socket = |family, protocol| call(libc::SYS_socket, [flag(family), 1, flag(protocol)]);
        for family in SOCKETS {
            assert_eq!(socket(family, 0), ALLOWED);
        }
        assert_eq!(socket(libc::AF_INET6, libc::IPPROTO_TCP), ALLOWED);
        for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, 43] {
            assert_eq!(socket(family, 0), EPERM);
        }
        for protocol in TCP_BY_OTHER_NAMES {
            assert_eq!(socket(libc::AF_INET, protocol), EPERM);
        }
        for (number, flags) in SENDING {
            let mut args = [0; 4];
            assert_eq!(call(number, args), ALLOWED);
            args[usize::from(flags)] = flag(libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL);
            assert_eq!(call(number, args), EPERM);
        }
    }

    #[test]
    fn clone3_and_foreign_architectures_have_no_calls() {
        assert_eq!(call(libc::SYS_clone3, [0, 0]), ENOSYS);
        let getpid = u32::try_from(libc::SYS_getpid).unwrap();
        // i386 and arm.
        for foreign in [0x4000_0003, 0x4000_0028] {
            assert_eq!(result(foreign, getpid, &[]), ENOSYS);
        }
        assert_eq!(call(libc::SYS_getpid + libc::c_long::from(X32), [0, 0]), ENOSYS);
        assert_eq!(call(libc::SYS_getpid, [0, 0]), ALLOWED);
    }

    #[test]
    fn calls_of_common_runtimes_are_allowed() {
        for number in [
            libc::SYS_read,
            libc::SYS_mmap,
            libc::SYS_execve,
            libc::SYS_memfd_create,
            libc::SYS_sched_getaffinity,
            libc::SYS_epoll_pwait,
            libc::SYS_membarrier,
            libc::SYS_rseq,
            libc::SYS_seccomp,
            libc::SYS_landlock_create_ruleset,
        ] {
            assert_eq!(call(number, [4711, 4711]), ALLOWED, "{number}");
        }
    }
}

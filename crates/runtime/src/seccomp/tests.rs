//! The compiled filter against a plain reading of the profile, in an interpreter of our own and in the kernel.

use proptest::prelude::*;

use super::arch::{Abi, X32_BIT};
use super::numbers::{Column, number};
use super::*;
use crate::caps;

const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Arm];

/// `struct seccomp_data`.
#[derive(Clone, Copy)]
struct Call {
    number: u32,
    audit: u32,
    args: [u64; 6],
}

/// The profile read plainly: rules in order, with the numbers that their names have.
struct Plain<'a> {
    profile: &'a Profile,
    abi: Abi,
    rules: Vec<(Vec<u32>, &'a Rule)>,
    newest: u32,
}

impl<'a> Plain<'a> {
    fn new(profile: &'a Profile, abi: Abi) -> Self {
        let numbers = |rule: &Rule| rule.names.iter().flat_map(|name| abi.numbers(name)).collect::<Vec<_>>();
        let rules: Vec<_> = profile.rules.iter().map(|rule| (numbers(rule), rule)).collect();
        let all = rules.iter().flat_map(|(numbers, _)| numbers).copied();
        let newest = all.filter(|number| !abi.is_private(*number)).max().unwrap_or(0);
        Self { profile, abi, rules, newest }
    }

    fn decide(&self, caps: u64, number: u32, args: [u64; 6]) -> Action {
        let holds = |test: &ArgTest| match *test {
            ArgTest::In { index, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&args[usize::from(index)]))
            }
            ArgTest::Masked { index, mask, value } => args[usize::from(index)] & mask == value,
        };
        let named = self.rules.iter().filter(|(numbers, _)| numbers.contains(&number)).map(|(_, rule)| rule);
        let mut matching = named
            .filter(|rule| caps & rule.needs == rule.needs && caps & rule.unless == 0 && rule.args.iter().all(holds));
        match matching.next() {
            Some(rule) => rule.action,
            None if number > self.newest && !self.abi.is_private(number) => Action::Errno(38),
            None => self.profile.default,
        }
    }
}

fn interpret(program: &[Instruction], call: Call) -> Action {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&call.number.to_le_bytes());
    data[4..8].copy_from_slice(&call.audit.to_le_bytes());
    for (index, arg) in call.args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut jump = |condition: bool| at += usize::from(if condition { jt } else { jf });
        match code {
            0x20 => accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => {
                return match k {
                    0x7fff_0000 => Action::Allow,
                    0x8000_0000 => Action::KillProcess,
                    k => Action::Errno((k - 0x0005_0000) as u16),
                };
            }
            other => panic!("opcode {other:#x}"),
        }
    }
}

fn cap_sets() -> Vec<u64> {
    let single = (0..41).map(|bit| caps::DOCKER_DEFAULT | 1 << bit);
    [0, caps::DOCKER_DEFAULT, caps::ALL].into_iter().chain(single).collect()
}

fn interesting_args() -> Vec<u64> {
    let mut values: Vec<u64> = (0..50).collect();
    values.extend([0x2_0000, 0x2_0008, 0x2_0001, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0008, u64::MAX]);
    values.extend((0..40).map(|bit| 1 << bit));
    values
}

#[test]
fn the_default_filter_equals_its_profile_for_every_number() {
    let profile = default_profile();
    for arch in ARCHES {
        for caps in cap_sets() {
            let program = compile(&profile, arch, caps).unwrap();
            for abi in arch.abis() {
                let plain = Plain::new(&profile, abi);
                for number in (0..600).chain(0xf_0000..0xf_0010).chain([X32_BIT - 1, !X32_BIT]) {
                    let args = [0; 6];
                    let got = interpret(&program, Call { number, audit: abi.audit, args });
                    assert_eq!(got, plain.decide(caps, number, args), "{arch:?} {abi:?} {number} {caps:#x}");
                }
            }
        }
    }
}

#[test]
fn argument_tests_equal_the_profile() {
    let profile = default_profile();
    for arch in ARCHES {
        for caps in [caps::DOCKER_DEFAULT, caps::ALL] {
            let program = compile(&profile, arch, caps).unwrap();
            for abi in arch.abis() {
                let plain = Plain::new(&profile, abi);
                for name in ["socket", "personality", "clone", "clone3", "read"] {
                    let number = number(name, abi.column).unwrap();
                    for arg in interesting_args() {
                        let arg = if abi.is_64_bit { arg } else { arg & 0xffff_ffff };
                        let args = [arg, 1, 2, 3, 4, 5];
                        let got = interpret(&program, Call { number, audit: abi.audit, args });
                        assert_eq!(got, plain.decide(caps, number, args), "{abi:?} {name} {arg:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn x32_calls_are_judged_like_their_x86_64_twins_and_foreign_ones_killed() {
    let program = compile(&default_profile(), Arch::X86_64, caps::DOCKER_DEFAULT).unwrap();
    let call = |number, audit| interpret(&program, Call { number, audit, args: [0; 6] });
    let [x86_64, _] = Arch::X86_64.abis();
    assert_eq!(call(X32_BIT, x86_64.audit), Action::Allow, "x32 read");
    assert_eq!(call(X32_BIT | 512, x86_64.audit), Action::Allow, "x32 rt_sigaction");
    assert_eq!(call(X32_BIT | 528, x86_64.audit), Action::Errno(1), "x32 kexec_load");
    assert_eq!(call(X32_BIT | 165, x86_64.audit), Action::Errno(1), "x32 mount");
    assert_eq!(call(0, Arch::Aarch64.abis()[0].audit), Action::KillProcess);
}

#[test]
fn dockers_promises_hold() {
    let decide = |caps: u64, name: &str, arg: u64| {
        let program = compile(&default_profile(), Arch::X86_64, caps).unwrap();
        let [abi, _] = Arch::X86_64.abis();
        let number = number(name, Column::X86_64).unwrap();
        interpret(&program, Call { number, audit: abi.audit, args: [arg, 0, 0, 0, 0, 0] })
    };
    let plain = |name, arg| decide(caps::DOCKER_DEFAULT, name, arg);
    assert_eq!(plain("clone", 0x0120_0011), Action::Allow, "fork");
    assert_eq!(plain("clone", 0x1000_0000), Action::Errno(1), "CLONE_NEWUSER");
    assert_eq!(plain("clone3", 0), Action::Errno(38));
    assert_eq!(plain("mount", 0), Action::Errno(1));
    assert_eq!(plain("unshare", 0), Action::Errno(1));
    assert_eq!(plain("socket", 38), Action::Errno(1), "AF_ALG");
    assert_eq!(plain("socket", 40), Action::Errno(1), "AF_VSOCK");
    assert_eq!(plain("socket", 2), Action::Allow);
    assert_eq!(plain("chroot", 0), Action::Allow);
    assert_eq!(plain("ptrace", 0), Action::Allow);
    assert_eq!(plain("bpf", 0), Action::Errno(1));
    assert_eq!(decide(caps::SYS_ADMIN, "mount", 0), Action::Allow);
    assert_eq!(decide(caps::SYS_ADMIN, "clone3", 0), Action::Allow);
    assert_eq!(decide(0, "chroot", 0), Action::Errno(1));
}

#[test]
fn a_test_of_a_seventh_argument_is_refused() {
    let rule = Rule {
        names: &["read"],
        action: Action::Allow,
        needs: 0,
        unless: 0,
        args: &[ArgTest::Masked { index: 6, mask: 1, value: 1 }],
    };
    let profile = Profile { default: Action::Errno(1), rules: vec![rule] };
    let error = compile(&profile, Arch::X86_64, 0);
    assert_eq!(error, Err(SeccompError::NoSuchArgument { name: "read", index: 6 }));
}

fn any_test() -> impl Strategy<Value = ArgTest> {
    let value = || prop_oneof![any::<u64>(), 0u64..20, Just(0xffff_ffff), (0u64..4).prop_map(|h| h << 32)];
    let ranges = proptest::collection::vec((value(), value()), 1..5).prop_map(|pairs| {
        let ordered: Vec<(u64, u64)> = pairs.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
        ArgTest::In { index: 1, ranges: ordered.leak() }
    });
    prop_oneof![ranges, (value(), value()).prop_map(|(mask, value)| ArgTest::Masked { index: 1, mask, value })]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    const NAMES: [&[&str]; 5] = [&["read", "write"], &["read"], &["mmap", "close"], &["socket"], &["write", "socket"]];
    let action = prop_oneof![Just(Action::Allow), Just(Action::Errno(7)), Just(Action::KillProcess)];
    (0..NAMES.len(), action, proptest::collection::vec(any_test(), 0..3)).prop_map(|(names, action, args)| Rule {
        names: NAMES[names],
        action,
        needs: 0,
        unless: 0,
        args: args.leak(),
    })
}

proptest! {
    #[test]
    fn any_profile_compiles_to_what_it_says(
        rules in proptest::collection::vec(any_rule(), 0..8),
        arg in prop_oneof![any::<u64>(), 0u64..20, Just(0xffff_ffff), (0u64..4).prop_map(|h| h << 32)],
    ) {
        let profile = Profile { default: Action::Errno(1), rules };
        prop_assume!(profile.rules.iter().any(|rule| !rule.names.is_empty()));
        let program = compile(&profile, Arch::X86_64, 0).unwrap();
        for abi in Arch::X86_64.abis() {
            let plain = Plain::new(&profile, abi);
            let arg = if abi.is_64_bit { arg } else { arg & 0xffff_ffff };
            let args = [0, arg, 0, 0, 0, 0];
            for number in (0..50).chain(350..370) {
                let got = interpret(&program, Call { number, audit: abi.audit, args });
                prop_assert_eq!(got, plain.decide(0, number, args), "{} {:#x}", number, arg);
            }
        }
    }
}

#[test]
fn numbers_are_those_of_libc() {
    let host = Arch::host().abis()[0].column;
    let known: [(&str, libc::c_long); 18] = [
        ("read", libc::SYS_read),
        ("socket", libc::SYS_socket),
        ("clone", libc::SYS_clone),
        ("execve", libc::SYS_execve),
        ("personality", libc::SYS_personality),
        ("mount", libc::SYS_mount),
        ("ptrace", libc::SYS_ptrace),
        ("openat", libc::SYS_openat),
        ("newfstatat", libc::SYS_newfstatat),
        ("seccomp", libc::SYS_seccomp),
        ("bpf", libc::SYS_bpf),
        ("statx", libc::SYS_statx),
        ("io_pgetevents", 333),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("futex_waitv", libc::SYS_futex_waitv),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
    ];
    for (name, expected) in known {
        if name == "io_pgetevents" && host != Column::X86_64 {
            continue;
        }
        assert_eq!(number(name, host).map(libc::c_long::from), Some(expected), "{name}");
    }
}

//! An interpreter of the classic BPF that seccomp allows, strict about every jump.

use crate::Program;
use crate::assemble::{AND, JA, JEQ, JGE, JGT, LD, RET};

/// What the program returns for a call; arguments that are not given are 0.
pub(super) fn run(program: &Program, arch: u32, number: u32, args: &[u64]) -> u32 {
    execute(program, arch, number, args).0
}

/// How many instructions run.
pub(super) fn steps(program: &Program, arch: u32, number: u32, args: &[u64]) -> usize {
    execute(program, arch, number, args).1
}

fn execute(program: &Program, arch: u32, number: u32, args: &[u64]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend([0; 8]);
    for index in 0..6 {
        data.extend(args.get(index).copied().unwrap_or(0).to_le_bytes());
    }
    let mut word = 0;
    let mut at = 0;
    for steps in 1.. {
        let filter = program.instructions[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { filter.jt } else { filter.jf });
        match filter.code {
            LD => {
                let offset = usize::try_from(filter.k).unwrap();
                assert!(offset.is_multiple_of(4));
                word = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            AND => word &= filter.k,
            JA => at += usize::try_from(filter.k).unwrap(),
            JEQ => at += jump(word == filter.k),
            JGT => at += jump(word > filter.k),
            JGE => at += jump(word >= filter.k),
            RET => return (filter.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
    unreachable!()
}

//! A profile in Docker's JSON: read, resolved and compiled for both families of machines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_seccomp::{Arch, Host, MAX_INSTRUCTIONS, Program, compile_for, docker_profile_json};

fuzz_target!(|json: &[u8]| {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let host = Host { arch, kernel: (6, 1) };
        let Ok(Some(profile)) = docker_profile_json(json, &["CAP_CHOWN"], &host) else { continue };
        let Ok(program) = compile_for(&profile, arch) else { continue };
        let instructions = &program.instructions;
        assert!((1..=MAX_INSTRUCTIONS).contains(&instructions.len()));
        // What the kernel's checker demands of jumps and of the end.
        for (at, instruction) in instructions.iter().enumerate() {
            let left = instructions.len() - at - 1;
            match instruction.code & 7 {
                5 if instruction.code == 5 => assert!((instruction.k as usize) < left),
                5 => {
                    assert!(usize::from(instruction.jt) < left);
                    assert!(usize::from(instruction.jf) < left);
                }
                6 => {}
                _ => assert!(left > 0),
            }
        }
        assert_eq!(Program::from_bytes(&program.to_bytes()), Some(program));
    }
});

//! What of this host is fit for Windows containers.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};

use crate::doctor::{self, Finding, Verdict};

/// Memory that a set-up and a few containers need, in KiB.
const MEMORY: u64 = 512 << 10;

/// Looks at what Windows containers need, beside what all containers need.
pub(crate) fn examine() -> Vec<Finding> {
    let mut findings = vec![processor(rustix::system::uname().machine().to_bytes())];
    findings.extend(doctor::for_every_container());
    findings.extend([renamed_folders(), attributes(), narrow(), doctor::disk(), memory()]);
    findings
}

fn processor(machine: &[u8]) -> Finding {
    const WHAT: &str = "processor";
    let name = String::from_utf8_lossy(machine).into_owned();
    if machine == b"x86_64" {
        Finding::good(WHAT, name)
    } else {
        let advice = "use an x86-64 machine: Wine translates calls, not instructions";
        Finding::bad(Verdict::Failure, WHAT, name, advice)
    }
}

/// Folders of an image can only be renamed with `redirect_dir`.
fn renamed_folders() -> Finding {
    const WHAT: &str = "overlay redirect";
    let set = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| fsconfig_set_string(context, "redirect_dir", "on"));
    match set {
        Ok(()) => Finding::good(WHAT, "redirect_dir can be set"),
        Err(Errno::PERM) => Finding::good(WHAT, "for root"),
        Err(error) => Finding::bad(
            Verdict::Failure,
            WHAT,
            format!("redirect_dir cannot be set: {error}"),
            "modprobe overlay, or use a kernel with CONFIG_OVERLAY_FS of Linux 5.15 or newer",
        ),
    }
}

/// Hidden and system files have their attributes in extended ones.
fn attributes() -> Finding {
    const WHAT: &str = "file attributes";
    let roots = crate::connect::Roots::of("", "");
    let place = roots.data.ancestors().find(|path| fs_err::metadata(path).is_ok());
    let place = place.unwrap_or_else(|| Path::new("/"));
    match rustix::fs::getxattr(place, "user.DOSATTRIB", &mut [0; 64]) {
        Err(Errno::OPNOTSUPP) => Finding::bad(
            Verdict::Warning,
            WHAT,
            format!("{} keeps no extended attributes", place.display()),
            "hidden and system files lose these attributes; use ext4, xfs or btrfs with --root",
        ),
        _ => Finding::good(WHAT, "kept"),
    }
}

/// For 32-bit programs Wine asks the kernel for a segment, by its 32-bit system calls.
fn narrow() -> Finding {
    let there = fs_err::metadata("/proc/sys/abi/vsyscall32").is_ok();
    let words = fs_err::read_to_string("/proc/cmdline").unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let config = fs_err::read_to_string(format!("/boot/config-{release}")).unwrap_or_default();
    narrow_by(there, &words, &config)
}

fn narrow_by(there: bool, words: &str, config: &str) -> Finding {
    const WHAT: &str = "32-bit programs";
    let bad = |found, advice| Finding::bad(Verdict::Warning, WHAT, found, advice);
    let mut word = words.split_whitespace().filter_map(|word| word.strip_prefix("ia32_emulation="));
    let default = !config.contains("CONFIG_IA32_EMULATION_DEFAULT_DISABLED=y");
    let on = word.next_back().map_or(default, |value| {
        matches!(value.to_ascii_lowercase().as_str(), "1" | "y" | "yes" | "t" | "true" | "on")
    });
    if !there {
        let advice = "use a kernel with CONFIG_IA32_EMULATION, or 64-bit programs only";
        bad("the kernel has no 32-bit system calls", advice)
    } else if on {
        Finding::good(WHAT, "the kernel has their system calls")
    } else {
        let advice = "boot with ia32_emulation=1, or use 64-bit programs only";
        bad("the kernel was started without 32-bit system calls", advice)
    }
}

fn memory() -> Finding {
    let available = doctor::available_memory();
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let found = format!("{} available", silo_types::size::binary(available as f64 * 1024.0));
    if available < MEMORY {
        let advice =
            "a container takes 40 MB before its program, the set-up 500 MB: add some, or swap";
        Finding::bad(Verdict::Warning, "memory", found, advice)
    } else {
        Finding::good("memory", found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_processors_are_refused() {
        assert!(!processor(b"x86_64").is_failure());
        assert!(processor(b"aarch64").is_failure());
    }

    #[test]
    fn the_kernel_may_have_no_narrow_calls() {
        let disabled = "CONFIG_IA32_EMULATION_DEFAULT_DISABLED=y\n";
        for (there, words, config, fine) in [
            (true, "quiet", "", true),
            (false, "quiet", "", false),
            (true, "quiet ia32_emulation=0", "", false),
            (true, "ia32_emulation=false ia32_emulation=1", "", true),
            (true, "", disabled, false),
            (true, "ia32_emulation=on", disabled, true),
        ] {
            let lines = doctor::lines(&[narrow_by(there, words, config)]);
            assert_eq!(lines.starts_with("ok"), fine, "{there} {words} {config}: {lines}");
        }
    }

    #[test]
    fn each_finding_has_a_way_out() {
        let findings = examine();
        assert!(findings.len() > 8);
        for finding in findings {
            let lines = doctor::lines(std::slice::from_ref(&finding));
            let fine = lines.starts_with("ok");
            assert_eq!(!fine, lines.contains(" -> "), "{lines}");
        }
    }
}

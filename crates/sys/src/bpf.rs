//! bpf(2): programs of version 2 control groups that decide on the use of devices.
//!
//! There is no library for so little: an instruction is eight bytes, and four commands are used.

#![expect(unsafe_code, reason = "bpf(2) takes a union by pointer")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// The destination in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Self {
        let registers = destination | source << 4;
        Self { code, registers, offset, immediate: immediate.cast_signed() }
    }

    /// Loads the 32-bit word at `offset` bytes behind the address in `source`.
    pub const fn load_word(destination: u8, source: u8, offset: i16) -> Self {
        Self::new(0x61, destination, source, offset, 0)
    }

    /// Copies the low 32 bits of a register.
    pub const fn copy(destination: u8, source: u8) -> Self {
        Self::new(0xbc, destination, source, 0, 0)
    }

    /// Sets a register.
    pub const fn set(destination: u8, value: u32) -> Self {
        Self::new(0xb4, destination, 0, 0, value)
    }

    /// Masks the low 32 bits of a register.
    pub const fn and(destination: u8, mask: u32) -> Self {
        Self::new(0x54, destination, 0, 0, mask)
    }

    /// Shifts the low 32 bits of a register.
    pub const fn shift_right(destination: u8, bits: u32) -> Self {
        Self::new(0x74, destination, 0, 0, bits)
    }

    /// Jumps if the low 32 bits of a register are a value. See [`Self::set_jump`].
    pub const fn jump_if_equal(register: u8, value: u32) -> Self {
        Self::new(0x16, register, 0, 0, value)
    }

    /// Jumps if the low 32 bits of a register are not a value. See [`Self::set_jump`].
    pub const fn jump_unless_equal(register: u8, value: u32) -> Self {
        Self::new(0x56, register, 0, 0, value)
    }

    /// Ends the program; register 0 is its result.
    pub const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }

    /// Sets how many instructions a jump skips. Other instructions stay as they are.
    pub const fn set_jump(&mut self, skip: i16) {
        // BPF_JMP32 is the class of all jumps here.
        if self.code & 7 == 6 {
            self.offset = skip;
        }
    }
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// `BPF_F_ALLOW_MULTI`: programs of groups below are run as well, and the first that denies
/// decides.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`: takes the place of another program at once.
const REPLACE: u32 = 1 << 2;

/// Most programs that a group is expected to have.
const MOST: u32 = 64;

/// The part of `union bpf_attr` for loading, up to and with `expected_attach_type`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// For attaching and detaching.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
    padding: u32,
}

/// For asking what is attached.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attached_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// For opening a program by its id.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
    padding: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
///
/// # Errors
///
/// As bpf(2); `EINVAL` or `EACCES` if the kernel's verifier refuses the program.
pub fn load_devices(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: address(program.as_ptr()),
        license: address(license.as_ptr()),
        ..Load::default()
    };
    attr.name[..12].copy_from_slice(b"silo_devices");
    // SAFETY: the attributes have the layout that this command wants; the instructions and the
    // licence that they point to outlive the call, which only reads them.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the call succeeded, so that this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a program the one of the group of version 2 whose directory this is. The group is at
/// no time without one if it has one already; all other programs that decide on devices and
/// were attached to the same group are detached.
///
/// # Errors
///
/// As bpf(2).
pub fn replace_devices(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let old = attached(cgroup)?;
    let mut attach = Attach {
        target: number(cgroup)?,
        program: number(program.as_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    if let [only] = &*old {
        attach.flags |= REPLACE;
        attach.replaced = number(only.as_fd())?;
    }
    // SAFETY: the attributes have the layout that this command wants and hold no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attach) }?;
    if old.len() > 1 {
        old.iter().try_for_each(|program| detach(cgroup, program))?;
    }
    Ok(())
}

/// Detaches every program that decides on the devices of this group of version 2.
///
/// # Errors
///
/// As bpf(2).
pub fn detach_devices(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    attached(cgroup)?.iter().try_for_each(|program| detach(cgroup, program))
}

/// The programs that are attached to a group itself.
fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = vec![0u32; usize::try_from(MOST).unwrap_or_default()];
    let mut query = Query {
        target: number(cgroup)?,
        kind: ATTACH_CGROUP_DEVICE,
        ids: address(ids.as_mut_ptr()),
        count: MOST,
        ..Query::default()
    };
    // SAFETY: the attributes have the layout that this command wants; `ids` has room for `count`
    // numbers and outlives the call, and nothing else refers to it meanwhile.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    ids.truncate(usize::try_from(query.count).unwrap_or_default());
    let mut programs = Vec::with_capacity(ids.len());
    for id in ids {
        let mut by_id = ById { id, ..ById::default() };
        // SAFETY: the attributes have the layout that this command wants and hold no pointers.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) } {
            // SAFETY: the call succeeded, so that this is a new descriptor that nobody else owns.
            Ok(fd) => programs.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            // Detached since.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

fn detach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let mut attach = Attach {
        target: number(cgroup)?,
        program: number(program.as_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        ..Attach::default()
    };
    // SAFETY: the attributes have the layout that this command wants and hold no pointers.
    unsafe { bpf(PROG_DETACH, &mut attach) }?;
    Ok(())
}

/// A descriptor as the kernel wants it in attributes.
fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// An address as the kernel wants it in attributes.
fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

/// The system call.
///
/// # Safety
///
/// `attr` must be laid out as the command wants, and what it points to must be valid for what
/// the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is valid for reads and writes of its size, and the caller answers for what
    // is in it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

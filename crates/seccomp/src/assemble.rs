//! Classic BPF written from its end to its start.
//!
//! All jumps of classic BPF go forward, so when code is emitted backwards every target exists
//! already. A conditional jump reaches 255 instructions; a target further away gets a plain
//! jump, and a returned value is repeated nearby where that is as short.

use libc::sock_filter;

/// `BPF_LD | BPF_W | BPF_ABS`.
pub(crate) const LD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`.
pub(crate) const JA: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(crate) const JEQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`, unsigned.
pub(crate) const JGT: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`, unsigned.
pub(crate) const JGE: u16 = 0x35;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(crate) const AND: u16 = 0x54;
/// `BPF_RET | BPF_K`.
pub(crate) const RET: u16 = 0x06;

/// A place in the code: the count of instructions from it to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// The furthest that a conditional jump reaches.
const REACH: usize = 255;
/// A return is repeated when the last one like it is further away than this, so that a node
/// with two subtrees between can still reach it.
const SHARE: usize = 200;

/// Code under construction, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<sock_filter>,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The label of the instruction that was emitted last.
    fn here(&self) -> Label {
        Label(self.reversed.len())
    }

    /// How many instructions a jump emitted next would skip to land on `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.here()
    }

    /// Loads the word at this offset of `struct seccomp_data`, then goes on with what was
    /// emitted last.
    pub(crate) fn load(&mut self, offset: u32) -> Label {
        self.push(LD, 0, 0, offset)
    }

    /// Masks the loaded word, then goes on with what was emitted last.
    pub(crate) fn and(&mut self, mask: u32) -> Label {
        self.push(AND, 0, 0, mask)
    }

    /// Returns a value; one that is already near is shared.
    pub(crate) fn ret(&mut self, value: u32) -> Label {
        let near = self.returns.iter().find(|(known, _)| *known == value).map(|&(_, label)| label);
        if let Some(label) = near.filter(|&label| self.distance(label) <= SHARE) {
            return label;
        }
        let label = self.push(RET, 0, 0, value);
        self.returns.retain(|(known, _)| *known != value);
        self.returns.push((value, label));
        label
    }

    /// Makes `target` the instruction that follows: nothing if it does already, else a jump.
    pub(crate) fn goto(&mut self, target: Label) -> Label {
        if target == self.here() { target } else { self.jump(target) }
    }

    fn jump(&mut self, target: Label) -> Label {
        let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(JA, 0, 0, distance)
    }

    /// Compares the loaded word with `k` and goes to one of two places.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        // Each plain jump that has to be put between moves the other target by one.
        let mut yes = yes;
        let mut no = no;
        if self.distance(yes) > REACH - 1 {
            yes = self.jump(yes);
        }
        if self.distance(no) > REACH {
            no = self.jump(no);
        }
        let short = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        let (jt, jf) = (short(self.distance(yes)), short(self.distance(no)));
        self.push(code, jt, jf, k)
    }

    /// The code in the order that it runs.
    pub(crate) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }
}

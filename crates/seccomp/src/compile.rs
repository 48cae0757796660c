//! From a profile to a program.
//!
//! The numbers of an architecture fall into ranges with the same fate: a value to return, or
//! a list of rules over arguments. A balanced tree of `>=` comparisons over the bounds of the
//! ranges finds the fate in about seven steps, where a list of rules would take hundreds. The
//! kernel, too, runs the whole program once for each call of the machine when it is loaded, to
//! learn which calls are always allowed; a short path makes loading fast as well.

use silo_oci::runtime::{LinuxSeccomp, SeccompOperator};

use crate::arch::{Arch, X32_BIT, lookup};
use crate::assemble::{Assembler, JEQ, JGE, JGT, Label};
use crate::error::Error;
use crate::multiplex;
use crate::policy::{Condition, Policy, RET_ALLOW, RET_KILL_PROCESS, RET_LOG, Return};
use crate::program::{MAX_INSTRUCTIONS, Program};

/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// What runs under an architecture, or in a number space, that the profile does not have.
const FOREIGN: Return = RET_KILL_PROCESS;

/// Compiles a profile for the machine that this program was built for.
///
/// Calls whose names are unknown to an architecture are left out, as libseccomp does. If a call
/// has a rule without conditions, that rule is the only one that counts, the first if there are
/// several; else its rules are tried in their order and the default is last. Architectures that
/// this machine's kernel cannot run are left out; processes of one that the profile does not
/// name are killed.
///
/// # Errors
///
/// If the profile is senseless in a way that [`Error`] names, or too long for the kernel.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    compile_for(profile, Arch::native().ok_or(Error::NoNativeArchitecture)?)
}

/// As [`compile`], for a machine whose own architecture is `native`.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_for(profile: &LinuxSeccomp, native: Arch) -> Result<Program, Error> {
    let policy = Policy::new(profile, native)?;
    let tables = Table::build(&policy);
    let table = |arch| policy.arches.iter().position(|&known| known == arch).map(|at| &tables[at]);

    let mut code = Assembler::default();
    let mut next = code.ret(FOREIGN);
    for (&arch, own) in policy.arches.iter().zip(&tables).rev() {
        let mut ranges = Vec::new();
        match arch {
            // Has its numbers in the tree of x86_64.
            Arch::X32 => continue,
            Arch::X86_64 => {
                own.append(&policy, 0, X32_BIT - 1, &mut ranges);
                match table(Arch::X32) {
                    Some(x32) => x32.append(&policy, X32_BIT, u32::MAX - 1, &mut ranges),
                    None => ranges.push(Range { start: X32_BIT, fate: Fate::Return(FOREIGN) }),
                }
                // -1 stands for a call that a tracer skips.
                ranges.push(Range { start: u32::MAX, fate: Fate::Return(policy.default) });
            }
            _ => own.append(&policy, 0, u32::MAX, &mut ranges),
        }
        ranges.dedup_by(|later, earlier| later.fate == earlier.fate);
        let start = tree(&mut code, &ranges, policy.default);
        code.goto(start);
        let start = code.load(OFFSET_NR);
        next = code.branch(JEQ, arch.audit(), start, next);
    }
    code.goto(next);
    code.load(OFFSET_ARCH);
    let instructions = code.finish();
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(instructions.len()));
    }
    Ok(Program { instructions, flags: policy.flags })
}

/// Conditions that must all hold, and what is returned then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    conditions: Vec<Condition>,
    action: Return,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Return(Return),
    /// The first clause that holds decides, else the default.
    Clauses {
        clauses: Vec<Clause>,
        narrow: bool,
    },
}

/// Numbers from `start` up to the next range's start.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    fate: Fate,
}

/// A rule that speaks about a number.
struct Entry {
    number: u32,
    /// Index in [`Policy::rules`].
    rule: usize,
    /// The value of the first argument that selects the named call from a multiplexing one.
    selector: Option<u32>,
}

/// The rules of one architecture by number.
struct Table {
    narrow: bool,
    /// See [`special`].
    special: u32,
    /// Sorted by number, then in the order of the profile.
    entries: Vec<Entry>,
    /// One above the highest number below `special` that the profile names.
    beyond: Option<u32>,
}

impl Table {
    /// The tables of all architectures, in their order. Every name is looked up once.
    fn build(policy: &Policy<'_>) -> Vec<Self> {
        let mut tables: Vec<Self> = policy
            .arches
            .iter()
            .map(|&arch| Self {
                narrow: arch.narrow(),
                special: special(arch),
                entries: Vec::new(),
                beyond: None,
            })
            .collect();
        for (index, rule) in policy.rules.iter().enumerate() {
            // A rule that says what the default says would only hide rules with conditions.
            let counts = rule.action != policy.default;
            for name in rule.names {
                let Some(row) = lookup(name) else { continue };
                for (&arch, table) in policy.arches.iter().zip(&mut tables) {
                    if let Some(number) = arch.pick(row) {
                        table.name(number);
                        if counts {
                            table.entries.push(Entry { number, rule: index, selector: None });
                        }
                    }
                    let lax = matches!(rule.action, RET_ALLOW | RET_LOG);
                    // A rule over arguments cannot see those of a multiplexed call, which are
                    // in memory: then a refusal covers it whole and a permission not at all.
                    if arch == Arch::X86
                        && counts
                        && (!lax || rule.when.is_empty())
                        && let Some((number, selector)) = multiplex::of(name)
                    {
                        let selector = Some(selector);
                        table.entries.push(Entry { number, rule: index, selector });
                    }
                }
            }
        }
        for table in &mut tables {
            table.entries.sort_by_key(|entry| entry.number);
        }
        tables
    }

    /// Notes that the profile knows a number.
    fn name(&mut self, number: u32) {
        if number < self.special {
            self.beyond = self.beyond.max(Some(number + 1));
        }
    }

    /// Appends the ranges that cover `first..=last`.
    fn append(&self, policy: &Policy<'_>, first: u32, last: u32, ranges: &mut Vec<Range>) {
        let mut free = first;
        for entries in self.entries.chunk_by(|one, other| one.number == other.number) {
            let number = entries[0].number;
            if number > free {
                self.gap(policy, free, number - 1, ranges);
            }
            ranges.push(Range { start: number, fate: self.fate(policy, entries) });
            free = number + 1;
        }
        self.gap(policy, free, last, ranges);
    }

    /// Appends the ranges that cover numbers without a rule.
    fn gap(&self, policy: &Policy<'_>, first: u32, last: u32, ranges: &mut Vec<Range>) {
        let newer = policy.newer.zip(self.beyond);
        let (newer, from) = newer.unwrap_or((policy.default, u32::MAX));
        let until = self.special;
        for (start, end, value) in [
            (first, from.saturating_sub(1).min(last), policy.default),
            (first.max(from), until.saturating_sub(1).min(last), newer),
            (first.max(until), last, policy.default),
        ] {
            if start <= end {
                ranges.push(Range { start, fate: Fate::Return(value) });
            }
        }
    }

    /// What the rules about one number come to.
    fn fate(&self, policy: &Policy<'_>, entries: &[Entry]) -> Fate {
        let mut clauses = Vec::new();
        for entry in entries {
            let rule = &policy.rules[entry.rule];
            match entry.selector {
                Some(selector) => clauses.push(Clause {
                    conditions: vec![multiplex::condition(selector)],
                    action: rule.action,
                }),
                None if rule.when.is_empty() => return Fate::Return(rule.action),
                None => clauses.extend(rule.when.iter().map(|conditions| Clause {
                    conditions: conditions.clone(),
                    action: rule.action,
                })),
            }
        }
        Fate::Clauses { clauses, narrow: self.narrow }
    }
}

/// From which number on calls are not the newest ones: the private calls of ARM
/// (`__ARM_NR_BASE`), and the x32 variants of older calls.
const fn special(arch: Arch) -> u32 {
    match arch {
        Arch::Arm => 0x000f_0000,
        Arch::X32 => X32_BIT | 512,
        _ => u32::MAX,
    }
}

/// Emits the search among ranges, for a number that is loaded and at least the first's start.
fn tree(code: &mut Assembler, ranges: &[Range], default: Return) -> Label {
    match ranges {
        [] => code.ret(default),
        [only] => fate(code, &only.fate, default),
        // A single number inside a larger range.
        [around, inner, after] if around.fate == after.fate && inner.start + 1 == after.start => {
            let no = fate(code, &around.fate, default);
            let yes = fate(code, &inner.fate, default);
            code.branch(JEQ, inner.start, yes, no)
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let yes = tree(code, high, default);
            let no = tree(code, low, default);
            code.branch(JGE, high[0].start, yes, no)
        }
    }
}

/// Emits what happens to a call.
fn fate(code: &mut Assembler, fate: &Fate, default: Return) -> Label {
    match fate {
        Fate::Return(value) => code.ret(*value),
        Fate::Clauses { clauses, narrow } => {
            let mut next = code.ret(default);
            for clause in clauses.iter().rev() {
                let no = next;
                next = code.ret(clause.action);
                for condition in clause.conditions.iter().rev() {
                    next = compare(code, condition, *narrow, next, no);
                }
            }
            next
        }
    }
}

/// Emits the comparison of one argument.
fn compare(
    code: &mut Assembler,
    condition: &Condition,
    narrow: bool,
    yes: Label,
    no: Label,
) -> Label {
    let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let high = |word: u64| low(word >> 32);
    let Condition { index, compare, value, mask } = *condition;
    let offset = OFFSET_ARGS + 8 * index;

    // The negated comparisons are their opposites with the targets exchanged.
    let (order, yes, no) = match compare {
        SeccompOperator::Equal | SeccompOperator::MaskedEqual => (JEQ, yes, no),
        SeccompOperator::NotEqual => (JEQ, no, yes),
        SeccompOperator::GreaterThan => (JGT, yes, no),
        SeccompOperator::LessEqual => (JGT, no, yes),
        SeccompOperator::GreaterEqual => (JGE, yes, no),
        SeccompOperator::LessThan => (JGE, no, yes),
    };
    // The low half decides when the high ones are equal.
    code.branch(order, low(value), yes, no);
    if low(mask) != u32::MAX {
        code.and(low(mask));
    }
    let label = code.load(offset);
    if narrow || high(mask) == 0 {
        return label;
    }
    let label = code.branch(JEQ, high(value), label, no);
    if order != JEQ {
        code.branch(JGT, high(value), yes, label);
    }
    if high(mask) != u32::MAX {
        code.and(high(mask));
    }
    code.load(offset + 4)
}

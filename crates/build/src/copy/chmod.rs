//! `--chmod`: an octal number, or what `chmod(1)` takes: `u=rwX,go-w`.

use super::CopyError;

/// A change of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// To this.
    To(u32),
    /// By these steps.
    By(Vec<Step>),
}

/// One operation on some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Shifts of the owners that it is about: any of 6, 3, 0 as bits 2, 1, 0.
    who: u32,
    operation: Operation,
    /// Of read, write and execute.
    permissions: u32,
    /// `X`: execute where a directory or somebody has it.
    conditional: bool,
    /// `s`
    set_id: bool,
    /// `t`
    sticky: bool,
    /// `u`, `g`, `o` on the right side: from which owner to copy.
    copy: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

impl Chmod {
    /// Reads the text.
    pub(crate) fn parse(text: &str) -> Result<Self, CopyError> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::To).ok_or_else(|| {
                // buildkit wording
                CopyError::Refused(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                ))
            });
        }
        let broken = || CopyError::Refused(format!("invalid chmod parameter: '{text}'"));
        let mut steps = Vec::new();
        for clause in text.split(',') {
            let end = clause.find(|c| !"ugoa".contains(c)).ok_or_else(broken)?;
            let (names, mut rest) = clause.split_at(end);
            let mut who = names.chars().fold(0, |who, name| who | owners(name));
            if who == 0 {
                who = 0b111;
            }
            while let Some(sign) = rest.chars().next() {
                let operation = match sign {
                    '+' => Operation::Add,
                    '-' => Operation::Remove,
                    '=' => Operation::Set,
                    _ => return Err(broken()),
                };
                let body = &rest[1..];
                let end = body.find(['+', '-', '=']).unwrap_or(body.len());
                let mut step = Step {
                    who,
                    operation,
                    permissions: 0,
                    conditional: false,
                    set_id: false,
                    sticky: false,
                    copy: None,
                };
                for letter in body[..end].chars() {
                    match letter {
                        'r' => step.permissions |= 4,
                        'w' => step.permissions |= 2,
                        'x' => step.permissions |= 1,
                        'X' => step.conditional = true,
                        's' => step.set_id = true,
                        't' => step.sticky = true,
                        'u' => step.copy = Some(6),
                        'g' => step.copy = Some(3),
                        'o' => step.copy = Some(0),
                        _ => return Err(broken()),
                    }
                }
                steps.push(step);
                rest = &body[end..];
            }
        }
        if steps.is_empty() { Err(broken()) } else { Ok(Self::By(steps)) }
    }

    /// The mode that something of this mode then has.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(steps) => steps.iter().fold(mode, |mode, step| step.apply(mode, is_directory)),
        }
    }

    /// The mode of directories that are made on the way.
    pub(crate) fn of_new_directories(&self) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(_) => 0o755,
        }
    }
}

fn owners(name: char) -> u32 {
    match name {
        'u' => 0b100,
        'g' => 0b010,
        'o' => 0b001,
        _ => 0b111,
    }
}

impl Step {
    fn apply(self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = self.permissions;
        if self.conditional && (is_directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        if let Some(shift) = self.copy {
            bits |= (mode >> shift) & 7;
        }
        let (mut change, mut mask) = (0, 0);
        for (owner, shift, special) in [(0b100, 6, 0o4000), (0b010, 3, 0o2000), (0b001, 0, 0)] {
            if self.who & owner != 0 {
                change |= bits << shift;
                mask |= 7 << shift;
                if self.set_id {
                    change |= special;
                }
            }
        }
        if self.sticky {
            change |= 0o1000;
        }
        match self.operation {
            Operation::Add => mode | change,
            Operation::Remove => mode & !change,
            Operation::Set => (mode & !mask) | change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, mode, is_directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("04755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("a-w", 0o666, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("go=", 0o755, false, 0o700),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("g=u", 0o640, false, 0o660),
            ("u+s,+t", 0o755, false, 0o5755),
            ("u+w-x", 0o500, false, 0o600),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(mode, is_directory), expected, "{text} {mode:o}");
        }
        for bad in ["", "8", "77777", "u", "u+q", "z+x", "0x1"] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}

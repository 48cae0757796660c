//! What was left out of a layer, and why: for the user to see.

use std::fmt;

use crate::name::NameProblem;
use crate::path::PathProblem;
use crate::{descriptor, sddl};

/// Why a layer is refused as a whole: taking it would mean a path outside of it, or a tree
/// that no Windows could have had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entry's name could lead out of the layer.
    #[error("its name is not allowed: {0}")]
    Path(PathProblem),
    /// The target of a hard link could lead out of the layer.
    #[error("its hard link target {0:?} is not allowed: {1}")]
    LinkTarget(String, PathProblem),
    /// A whiteout of something outside.
    #[error("a whiteout of a name that is not allowed: {0}")]
    Whiteout(NameProblem),
    /// The name is there already, perhaps in another case.
    #[error("it is there already, as {0:?}")]
    Duplicate(String),
    /// It is beneath something that is no directory.
    #[error("it is beneath {0:?}, which is no directory")]
    Beneath(String),
    /// Something that cannot be in a Windows layer and would need more than dropping.
    #[error("{0} cannot be in a Windows layer")]
    Kind(&'static str),
}

/// What was dropped or changed about an entry; the rest of the layer is sound without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The entry is dropped for its path.
    #[error("left out: {0}")]
    Path(PathProblem),
    /// The entry is dropped for its type.
    #[error("left out: a {0} cannot be in a Windows layer")]
    Kind(&'static str),
    /// The entry is dropped: it is beneath one that is.
    #[error("left out: it is beneath {0:?}, which is left out")]
    Beneath(String),
    /// The entry is dropped: the name is there already, perhaps in another case.
    #[error("left out: it is there already, as {0:?}")]
    Duplicate(String),
    /// A whiteout where there can be none is dropped.
    #[error("left out: a whiteout outside of Files")]
    Whiteout,
    /// An opaque marker, which Windows does not know, has no effect.
    #[error("no effect: Windows has no opaque directories")]
    Opaque,
    /// A stream whose owner is not directly before it is dropped.
    #[error("left out: a stream that does not follow its owner")]
    Stream,
    /// A hard link to what is not in the layer and not beneath it is dropped.
    #[error("left out: its hard link target {0:?} cannot be linked to")]
    LinkTarget(String),
    /// A link to a place outside of `C:` is dropped.
    #[error("left out: its target {target:?} is {problem}")]
    Target {
        /// The target as written.
        target: String,
        /// What it is.
        problem: crate::target::TargetProblem,
    },
    /// A directory that has no entry of its own is made.
    #[error("the directory {0:?} has no entry")]
    Implied(String),
    /// The attributes are dropped: no number, or one that does not suit the entry.
    #[error("its attributes {0:?} are left out")]
    Attributes(String),
    /// The entry is encrypted by the file system it came from.
    #[error("its content is encrypted by EFS and of no use")]
    Encrypted,
    /// The entry was a reparse point of a kind that layers do not carry.
    #[error("it was a reparse point, without its data")]
    Reparse,
    /// The security descriptor is dropped.
    #[error("its security descriptor is left out")]
    Descriptor(#[source] descriptor::Error),
    /// The security descriptor in text form is dropped.
    #[error("its security descriptor in text form is left out")]
    Sddl(#[source] sddl::Error),
    /// A record is dropped.
    #[error("its record {0:?} is not valid, and left out")]
    Record(String),
    /// The name has the form of a short one and may stand for another file on Windows.
    #[error("its name has the form of a short name")]
    ShortName,
}

impl Finding {
    /// Whether the whole entry is left out.
    pub fn drops_entry(&self) -> bool {
        matches!(
            self,
            Self::Path(_)
                | Self::Kind(_)
                | Self::Beneath(_)
                | Self::Duplicate(_)
                | Self::Whiteout
                | Self::Stream
                | Self::LinkTarget(_)
                | Self::Target { .. }
        )
    }
}

/// A finding about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the entry in the tar, made printable.
    pub entry: String,
    /// What there is to say.
    pub finding: Finding,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.entry, self.finding)
    }
}

/// Reports of a layer: so many in full, of others only the number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// The first ones.
    pub first: Vec<Report>,
    /// How many there were in all.
    pub count: u64,
}

/// How many reports are kept in full.
const MAX_REPORTS: usize = 1000;

impl Reports {
    /// Adds a report.
    pub fn push(&mut self, entry: &str, finding: Finding) {
        self.count += 1;
        if self.first.len() < MAX_REPORTS {
            let entry = entry.chars().take(512).collect();
            self.first.push(Report { entry, finding });
        }
    }

    /// Adds reports.
    pub fn extend(&mut self, entry: &str, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.push(entry, finding);
        }
    }
}

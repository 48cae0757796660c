//! The compatibility report: what of an image or of a program for Windows will run with Wine.
//!
//! Nothing is run. Executables' headers and imports are read (`silo_pe`), libraries are looked
//! for where Windows would ([`survey`]), and each function is looked for in what Wine has
//! (`libraries`): what Wine has is read from the base image in use and written down nowhere.
//! What cannot be read from files is in one small table (`known`).
//!
//! # Grades
//!
//! | grade | meaning |
//! | --- | --- |
//! | `good` | nothing speaks against it: everything it names is there |
//! | `likely` | it starts; a part of it may not work, and the report says which |
//! | `unlikely` | it starts, but what it is for needs something that Wine lacks |
//! | `no` | it cannot start |
//!
//! A report's grade is that of the command for an image, else that of its worst program. `run`
//! and `create` warn from `unlikely` on.
//!
//! # Hostile input
//!
//! Files are read through descriptors below one root (`openat2`), regular ones only, with the
//! limits of `silo_pe`; numbers of entries, programs and libraries are limited here, and a report
//! says when something was left out.

mod assess;
mod command;
mod drive;
mod end;
mod facts;
mod judge;
mod known;
mod libraries;
mod services;
mod survey;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use assess::{Assessment, assess, glance};
pub use command::{Command, search_directories};
pub use drive::Drive;
pub use end::{explain as explain_end, means_not_loaded};
pub use facts::{Facts, Kind};
pub use judge::{Surroundings, judge};
pub use libraries::{Answer, LookedUp, Need, answers};
pub use services::{Service, features, services};
pub use survey::{Program, Survey, survey};

/// How well a program fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing speaks against it.
    Good,
    /// It starts; a part of it may not work.
    Likely,
    /// It starts, but what it is for needs what Wine lacks.
    Unlikely,
    /// It cannot start.
    No,
}

impl Grade {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Likely => "likely",
            Self::Unlikely => "unlikely",
            Self::No => "no",
        }
    }

    /// Whether to warn before such a program is run.
    pub fn is_bad(self) -> bool {
        self >= Self::Unlikely
    }
}

/// Something that speaks against a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reason {
    /// The best grade that a program can have with it.
    pub grade: Grade,
    /// What it is.
    pub text: String,
    /// What can be done; empty where nothing can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Reason {
    fn new(grade: Grade, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { grade, text: text.into(), advice: advice.into() }
    }
}

/// What is to be said of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verdict {
    /// Which one.
    pub path: String,
    /// Its grade.
    pub grade: Grade,
    /// What it is: processor, console or windows, .NET.
    pub kind: String,
    /// What speaks against it, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The image, file or directory.
    pub subject: String,
    /// The grade of it all.
    pub grade: Grade,
    /// The version of Wine; empty where no runtime is set up.
    #[serde(default)]
    pub wine: String,
    /// The image whose libraries were looked at; empty where none was.
    #[serde(default)]
    pub base: String,
    /// The command of an image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// What speaks against it as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// The command's program first.
    pub programs: Vec<Verdict>,
    /// Services that the image has beside its base's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// The worst of grades; good if there is none.
pub(crate) fn worst(grades: impl Iterator<Item = Grade>) -> Grade {
    grades.max().unwrap_or(Grade::Good)
}
